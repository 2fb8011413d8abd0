"""Tasks for env=lm: `rows(split)` gives prompts of the splits train, validation and test, `score` is what is learnt.

`second_score`, where there is one, is reported and never learnt from. env.task=NAME takes the module of that name.
"""
