"""An annotated data set for people: one self-contained HTML page, or the same in a shell.

model.py     rows as responses, with the characters of each token
pairing.py   two data sets side by side
summary.py   figures over all rows
facts.py     what is known about a data set, in words
page.py      all of that as one HTML file, made of assets/
terminal.py  all of that as text
"""
