"""Sources: what others write down of the calls they made, read as events.

One module a dialect. Each turns one record of its source into events of ours, and knows nothing of HTTP, the store or
how records come in; all of them end in `tallybook.ingest.decode`, where every event is checked.
"""
