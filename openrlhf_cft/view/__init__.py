"""An annotated data set for people: one self-contained HTML page, or the same in a shell.

dataset.py   rows to responses, with the characters of each token
pairing.py   two data sets side by side
summary.py   what all the rows say together
page.py      all that as one HTML file, made of assets/
terminal.py  all that as text
"""
