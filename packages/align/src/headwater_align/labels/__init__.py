"""People's comparisons of what the current policy writes: one round of the loop that RLHF goes through.

sample        K completions a prompt from one policy or several
tasks         what a labeller gets to see: which task, in which order, under which names
page, table, label_studio, argilla
              one way each to hand tasks out and to read what comes back
rankings      what makes a ranking that counts
agreement     how far labellers agree
export, importing
              the stages around them
"""
