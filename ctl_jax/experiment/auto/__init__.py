"""`auto`: the best recipe for a budget, found within the budget.

expectation.py  what is expected of a recipe on a task, with an error bar, after looks at the task
candidates.py   what there is to choose from, and what it costs
policy.py       what is done next: pure functions of what was seen
answer.py       the steps of it, one after the other
prior.json      what was learnt from other tasks, by benchmarks/meta.py
"""
