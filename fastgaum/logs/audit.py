"""The audit: does any simple, label-free rule find the clicked item more often than chance, and
why.

A rule is scored by prec@1 on the events with a choice and more than one candidate, ties by exact
expectation. Under the null the choice is uniform in its display set: a rule whose best score is
shared by t of n candidates earns 1/t with probability t/n (`audit_rules.tail_probability`).
p-values are adjusted by Holm over all rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from fastgaum.logs.audit_displays import DisplayDependence, display_dependence
from fastgaum.logs.audit_facts import (
    Fact,
    facts_of_leaks,
    facts_of_log,
    facts_of_reading,
    facts_of_rows,
)
from fastgaum.logs.audit_rules import (
    AuditRule,
    expected_rules,
    fold_events,
    holm,
    rule_test,
    rules_of_log,
    rules_of_rows,
)
from fastgaum.logs.context import ContextField, context_of
from fastgaum.logs.fold import Rows
from fastgaum.logs.log import SessionLog, effective_events, require_log, worth_text

FLAG_LEVEL = 0.05
"""bounds the probability that a log without a trap has any rule flagged"""
EXPECTED = "the items' click rates on other users, or the first place of an order that is real"
NEARLY_ALL = 0.95
"""share of the way from the floor to all clicks that no knowledge of items alone goes"""


@dataclass(frozen=True)
class Finding:
    """The score of one rule. All but p are percentages; the first four are over events of several
    candidates."""

    rule: str
    prec_at_1: float
    floor: float
    """prec@1 of a random order on the same events"""
    interval: tuple[float, float]
    """95 % interval of prec_at_1, clustered by user"""
    p: float
    """probability of scoring as high by chance, adjusted; 1 if not above the floor"""
    flagged: bool
    """it beats chance; one about ids, the order or a field also what is to be expected (the items'
    click rates, and the first place of an order that is real), or it finds nearly all"""
    test_prec_at_1: float | None
    """on all test events, single candidates included; None without any"""
    action: str
    field: str = ""
    """the declared field that it looks at"""

    @property
    def mark(self) -> str:
        """What a reader should do, after the figures."""
        if self.flagged:
            return f"  {'KNOWN BEFORE?' if self.field else 'FLAG'}: {self.action}"
        return "  no more than is expected" if self.p <= FLAG_LEVEL else ""


@dataclass(frozen=True)
class AuditReport:
    """All findings, those that beat the floor first, and the facts."""

    name: str
    n_sessions: int
    n_users: int
    n_events: int
    n_rule_events: int
    findings: tuple[Finding, ...]
    facts: tuple[Fact, ...]
    has_rows: bool
    """whether the raw rows were at hand"""
    context: tuple[ContextField, ...] = ()
    vectors: tuple[tuple[str, int], ...] = ()
    """columns of vectors of the items, and their lengths"""
    n_actions: int = 0
    not_read: tuple[str, ...] = ()
    dependence: DisplayDependence | None = None
    """None where nothing can be said"""
    expected: float = math.nan
    """prec@1 of the items' click rates, counted on other users, or of the first place of an order
    that is real, if that finds more"""
    effective_events: float | None = None
    """events of one weight that say as much, (Σw)²/Σw²; None where weights do not differ"""

    def __repr__(self) -> str:
        rules = ", ".join(f.rule for f in self.flagged) or "none"
        return (
            f"AuditReport('{self.name}', {len(self.flagged)} of {len(self.findings)} rules beat "
            f"chance: {rules})"
        )

    @property
    def flagged(self) -> tuple[Finding, ...]:
        """The rules that beat chance and what is expected."""
        return tuple(finding for finding in self.findings if finding.flagged)

    @property
    def verdict(self) -> str:
        """Whether there is something to mend, in a sentence."""
        fields = ", ".join(dict.fromkeys(one.field for one in self.flagged if one.field))
        look = [f"{one.rule} ({one.prec_at_1:.1f})" for one in self.flagged if not one.field]
        look += [fact.name for fact in self.facts if fact.action.startswith("FLAG")]
        if self.dependence is not None and self.dependence.found:
            look.append("displays that depend on clicks")
        if not look:
            unless = f", if these fields are known before the choice: {fields}" if fields else ""
            return f"nothing to mend{unless}"
        asked = f"; are these fields known before the choice? {fields}" if fields else ""
        return f"look at these: {'; '.join(look)}{asked}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN is None."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain | {"verdict": self.verdict}

    def to_text(self) -> str:
        """The report as plain lines, the verdict last."""
        actions = f", {self.n_actions} actions" if self.n_actions else ""
        head = (
            f"{self.name}: {self.n_sessions} sessions of {self.n_users} users, {self.n_events} "
            f"events{actions}; rules are scored on {self.n_rule_events} events with a choice among "
            "several candidates"
        )
        if self.effective_events is not None:
            head += f"\n{worth_text(self.n_events, self.effective_events)}"
        lines = [
            head,
            "",
            f"{'rule':<46}{'prec@1':>7}{'95 % interval':>16}{'floor':>7}{'p':>9}{'test':>7}",
        ]
        for f in self.findings:
            low, high = f.interval
            test = "-" if f.test_prec_at_1 is None else f"{f.test_prec_at_1:.1f}"
            span = f"{low:.1f} to {high:.1f}"
            figures = f"{f.prec_at_1:>7.1f}{span:>16}{f.floor:>7.1f}{f.p:>9.2g}"
            lines.append(f"{f.rule:<46}{figures}{test:>7}{f.mark}")
        if self.expected == self.expected:
            lines += ["", f"expected without a trap: prec@1 {self.expected:.1f}, {EXPECTED}"]
        lines += ["", f"{'share':<62}{'%':>7}{'of':>8}"]
        for fact in self.facts:
            share = "-" if fact.percent is None else f"{fact.percent:.1f}"
            lines.append(f"{fact.name:<62}{share:>7}{fact.n:>8}  {fact.action}")
        if self.dependence is not None:
            lines += ["", self.dependence.to_text()]
        if self.context:
            lines += ["", "context of the events:", *(f"  {field}" for field in self.context)]
        if self.vectors:
            said = ", ".join(f"{name} ({width} numbers)" for name, width in self.vectors)
            lines += ["", f"vectors of the items: {said}"]
        if self.not_read:
            lines += ["", f"not read: {', '.join(self.not_read)}"]
        if not self.has_rows:
            lines += [
                "",
                "order and repeated rows were not looked at: a saved log no longer has them, "
                "audit the original file",
            ]
        lines += ["", f"verdict: {self.verdict}"]
        return "\n".join(lines)


def audit(
    log: SessionLog,
    raw: Rows | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Audit a log, with the raw rows it was read from (`read.raw_rows`); progress: is called with
    events done and events in all. Raises LogFormatError for rows of another log, ConfigError for no
    log."""
    require_log(log)
    rules, facts = rules_of_log(log), list(facts_of_reading(log.clicks, log.actions))
    if raw is not None:
        sets, candidates = fold_events(raw, log)
        rules = [*rules_of_rows(sets, candidates, ordered=log.ordered), *rules]
        facts += facts_of_rows(sets, candidates)
    facts += [*facts_of_log(log, raw), *facts_of_leaks(log)]
    findings = []
    for number, rule in enumerate(rules, start=1):
        findings.append(_score(rule))
        if progress is not None:
            progress(log.n_events * number // len(rules), log.n_events)
    adjusted = holm([one.p for one in findings])
    expected = [_score(rule).prec_at_1 for rule in expected_rules(log)]

    def is_flagged(rule: AuditRule, one: Finding, p: float) -> bool:
        # a place is not explained by the place
        usual = expected[:1] if rule.name.endswith("position") else expected
        nearly_all = one.floor + NEARLY_ALL * (100 - one.floor)
        found = rule.is_own or one.prec_at_1 > max(usual) or one.prec_at_1 >= nearly_all
        return p <= FLAG_LEVEL and one.p < 1 and found

    findings = [
        dataclasses.replace(one, p=p, flagged=is_flagged(rule, one, p))
        for rule, one, p in zip(rules, findings, adjusted, strict=True)
    ]
    countable = (log.choices >= 0) & (np.diff(log.display_offsets) > 1)
    return AuditReport(
        name=log.name,
        n_sessions=log.n_sessions,
        n_users=len(np.unique(log.users)),
        n_events=log.n_events,
        n_rule_events=int(countable.sum()),
        findings=tuple(sorted(findings, key=lambda f: (not f.flagged, f.floor - f.prec_at_1))),
        facts=tuple(facts),
        has_rows=raw is not None,
        context=context_of(log),
        vectors=tuple((name, rows.shape[1]) for name, rows in sorted(log.vectors.items())),
        n_actions=log.n_actions,
        not_read=raw.not_read if raw is not None else (),
        dependence=display_dependence(log),
        expected=max(expected),
        effective_events=effective_events(log.weights),
    )


def _score(rule: AuditRule) -> Finding:
    sets = rule.sets
    sizes, clicked = np.diff(sets.offsets), sets.choices >= 0
    hits, ((low, high), p) = rule_test(sets, rule.scores())
    kept, test = clicked & (sizes > 1), clicked & sets.is_test
    return Finding(
        rule=rule.name,
        prec_at_1=100 * float(hits[kept].mean()) if kept.any() else math.nan,
        floor=100 * float((1.0 / sizes[kept]).mean()) if kept.any() else math.nan,
        interval=(100 * low, 100 * high),
        p=p,
        flagged=False,
        test_prec_at_1=100 * float(hits[test].mean()) if test.any() else None,
        action=rule.action,
        field=rule.field,
    )
