"""What the five packages agree on, carried by each through a symlink: there is no sixth distribution.

`errors`          what a user is told when something is wrong
`manifest`        an artefact is a folder with a manifest.json; write it last, verify it first
`config`          params.yaml + configs/SCALE.yaml + --set, parsed into a validated model
`stage`           how a stage runs: verify, fingerprint, lock, work, publish
`cli`             one console script a package, one sub-command a stage
`execution`       workers and executor, which change nothing of what a stage makes
`fanout`          one function over shards
`sequences`       rows of unequal length as rectangles
`privacy`         private data in a text, found in what is read and in what is written
`counterfactual`  one group's words in the place of another's
`steering`        how a command that writes text is told to steer it
"""
