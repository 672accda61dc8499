# SPDX-License-Identifier: Apache-2.0
"""How samples become minutes, minutes hours, and either the points of a chart: SQL, made of the gauges' names.

A cell is one row of `CELL`: of each gauge how many readings told it, the least, the sum, the most and the last one.
Cells of any length fold into longer ones. Pure.
"""

from typing import Final

GAUGES: Final = ("utilisation_pct", "temperature_c", "memory_used_bytes", "power_mw", "clock_mhz")
PARTS: Final = ("n", "min", "sum", "max", "last")
MINUTE_S: Final = 60
HOUR_S: Final = 3_600
CELL: Final = (
    "samples",
    *(f"{gauge}_{part}" for gauge in GAUGES for part in PARTS),
    "memory_total_bytes",
    "throttle_n",
    "throttled_n",
)
"""Beside `device_no` and `start_s`."""
CELLS: Final = ", ".join(CELL)


def of_samples(rows: str, span: str) -> str:
    """Cells of `span` seconds out of `rows`, a relation of samples. The names are our own, never a caller's words."""

    def gauge(name: str) -> str:
        return (
            f"count({name})::integer AS {name}_n, min({name})::double precision AS {name}_min,"
            f" coalesce(sum({name}::double precision), 0) AS {name}_sum, max({name})::double precision AS {name}_max,"
            f" {_last(name, f'{name} IS NOT NULL', 'at_s')}::double precision AS {name}_last"
        )

    return (
        f"SELECT device_no, at_s / {span} * {span} AS start_s, count(*)::integer AS samples,"  # noqa: S608 - see above
        f" {', '.join(gauge(name) for name in GAUGES)},"
        f" {_last('memory_total_bytes', 'memory_total_bytes IS NOT NULL', 'at_s')} AS memory_total_bytes,"
        " count(throttle)::integer AS throttle_n,"
        " (count(*) FILTER (WHERE throttle NOT IN ('', 'idle')))::integer AS throttled_n"
        f" FROM {rows} GROUP BY device_no, at_s / {span}"
    )


def of_cells(rows: str, span: str) -> str:
    """Cells of `span` seconds out of `rows`, a relation of shorter ones."""

    def gauge(name: str) -> str:
        return (
            f"sum({name}_n)::integer AS {name}_n, min({name}_min) AS {name}_min, sum({name}_sum) AS {name}_sum,"
            f" max({name}_max) AS {name}_max, {_last(f'{name}_last', f'{name}_n > 0', 'start_s')} AS {name}_last"
        )

    return (
        f"SELECT device_no, start_s / {span} * {span} AS start_s, sum(samples)::integer AS samples,"  # noqa: S608
        f" {', '.join(gauge(name) for name in GAUGES)},"
        f" {_last('memory_total_bytes', 'memory_total_bytes IS NOT NULL', 'start_s')} AS memory_total_bytes,"
        " sum(throttle_n)::integer AS throttle_n, sum(throttled_n)::integer AS throttled_n"
        f" FROM {rows} GROUP BY device_no, start_s / {span}"
    )


def _last(value: str, told: str, time: str) -> str:
    return f"(array_agg({value} ORDER BY {time} DESC) FILTER (WHERE {told}))[1]"


def write(table: str, cells: str) -> str:
    """Into a table, in place of what was there."""
    kept = ", ".join(f"{name} = excluded.{name}" for name in CELL)
    return (
        f"INSERT INTO {table} (device_no, start_s, {CELLS}) SELECT device_no, start_s, {CELLS}"  # noqa: S608 - see above
        f" FROM ({cells}) AS cells ON CONFLICT (device_no, start_s) DO UPDATE SET {kept}"
    )
