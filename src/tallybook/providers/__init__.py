"""What providers say was used, and what it cost: where they say it, and how it reads in our words.

One module a provider. Each says where its reports are and turns one result of a page into events or costs; none of
them does any HTTP.
"""
