"""Reports: what runs have left in their directories, compared, drawn and written as one page."""
