"""The Markdown tables."""

from figures import Spread, megabytes, milliseconds, ratios, spread
from results import WorkResult


def time_cell(times: Spread) -> str:
    low, high = milliseconds(times.low), milliseconds(times.high)
    return f"{milliseconds(times.median)} ({low} to {high})"


def ratio_cell(ratio: Spread) -> str:
    return f"**{ratio.median:.2f}×** ({ratio.low:.2f} to {ratio.high:.2f})"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def work_rows(work: WorkResult) -> list[str]:
    """One row for each peer."""
    ours = work.ours.medians()
    our_time = time_cell(spread(ours))
    share = spread([line["share_of_peak"] for line in work.ours.rounds])
    rows = []
    for one in work.rows():
        if one.failure is not None:
            figures = [f"failed: {one.failure}", ""]
        else:
            theirs = one.medians()
            figures = [time_cell(spread(theirs)), ratio_cell(ratios(theirs, ours))]
        rows.append(row([work.title, our_time, f"{share.median:.2f}", one.label(), *figures]))
    return rows


def speed_table(works: list[WorkResult]) -> str:
    """Medians over the rounds, with the lowest and highest round."""
    lines = [
        row(["work", "taskweave, ms", "of FMA peak", "peer", "peer, ms", "peer / taskweave"]),
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for work in works:
        if work.ours.failure is not None:
            lines.append(row([work.title, f"failed: {work.ours.failure}", "", "", "", ""]))
        else:
            lines += work_rows(work)
    return "\n".join(lines)


def memory_table(works: list[WorkResult]) -> str:
    """Peak resident memory of each process; what the peer's share is after import and building."""
    lines = [
        row(
            ["work", "taskweave", "peer", "peer, peak", "before its first step", "taskweave / peer"]
        ),
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for work in works:
        if work.ours.failure is not None or not work.ours.peak_bytes:
            continue
        ours = max(work.ours.peak_bytes)
        for one in work.rows():
            if one.failure is None and one.peak_bytes and one.prepared_bytes:
                lines.append(
                    row(
                        [
                            work.title,
                            megabytes(ours),
                            one.label(),
                            megabytes(one.peak_bytes),
                            megabytes(one.prepared_bytes),
                            f"{ours / one.peak_bytes:.2f}×",
                        ]
                    )
                )
    return "\n".join(lines)


def failures(works: list[WorkResult]) -> list[str]:
    """A line for every setting that failed, in the table or not."""
    return [
        f"{work.title}: {one.label()} failed: {one.failure}."
        for work in works
        for one in work.tried
        if one.failure is not None
    ]
