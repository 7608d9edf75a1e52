"""One page on a whole run, made from artefacts alone.

`inputs`      what the artefacts and run records hold
`overview`, `data`, `training`, `scores`, `alignment`, `provenance`
              one chapter each: facts in, a `document.Section` out
`document`    the small document model that both outputs are rendered from
`chart`, `lineage`
              pictures as SVG text whose colours come from the page's style sheet
`render`      document -> index.html and report.md
"""
