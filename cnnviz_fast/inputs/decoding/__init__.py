"""What decode.py leaves to others: which formats there are, and what each of them needs to come out right."""
