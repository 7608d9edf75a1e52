"""unseen.md: the scores as tables."""

from __future__ import annotations


def table(metrics: dict) -> str:
    """Accuracy of every model by cluster and task, and what changed since `before`."""
    before = metrics["before"]
    lines = [
        "# Zero-shot on unseen clusters",
        "",
        f"{metrics['questions']} questions of clusters that were kept out of tuning; {metrics['too_long']} more",
        "did not fit into the context of every model. Accuracy in per cent with its 95% interval (Wilson); the",
        "difference is paired, with a bootstrap interval over groups of questions. `majority` always gives the",
        "commonest answer; `balanced` weighs every answer alike; `same` says how often the model gives its commonest",
        "answer: at 100 it has read nothing, whatever its accuracy.",
    ]
    for by in ("cluster", "task"):
        lines += [
            "",
            f"| {by} | model | asked as | n | accuracy | chance | majority | balanced | same "
            f"| against {before} | to right | to wrong |",
            "| --- | --- | --- |" + " ---: |" * 9,
        ]
        for name, of in metrics[f"by_{by}"].items():
            for model, a in of["models"].items():
                d = of["against_before"].get(model)
                change = (
                    f"{100 * d['difference']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}] "
                    f"| {d['wrong_to_right']} | {d['right_to_wrong']}"
                    if d
                    else "| |"
                )
                lines.append(
                    f"| {name} | {model} | {metrics['format'][model]} | {a['n']} "
                    f"| {100 * a['accuracy']:.1f} [{100 * a['low']:.1f}, {100 * a['high']:.1f}] "
                    f"| {100 * a['chance']:.1f} | {100 * a['majority']:.1f} "
                    f"| {100 * a['balanced']:.1f} | {100 * a['same']:.0f} | {change} |"
                )
    return "\n".join(lines) + "\n"
