//! Timeline history files, `0000000N.history` (`access/transam/timeline.c`).
//!
//! One line for each ancestor, oldest first: its number, the position at which it was left, and why. Whoever needs the file's
//! exact text keeps the bytes; this is its meaning.

use super::{Lsn, ParseError, TimelineId};

/// Where a timeline comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history it is.
    pub timeline: TimelineId,
    /// Those before it, oldest first, with strictly increasing numbers.
    pub ancestors: Vec<Ancestor>,
}

/// A timeline that was left for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Its number.
    pub timeline: TimelineId,
    /// Where it was left: the next timeline begins at this position.
    pub end: Lsn,
    /// Why, as the server wrote it; may be empty.
    pub reason: String,
}

impl TimelineHistory {
    /// The history of a timeline that has no file, as timeline 1.
    pub fn without_file(timeline: TimelineId) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the file of `timeline`, as Postgres does: blank lines and `#` comments are skipped, numbers must increase and stay
    /// below the timeline's own.
    ///
    /// The positions need not increase: a recovery onto timeline 2 that was stopped before 2 begins leaves such a file.
    pub fn parse(timeline: TimelineId, file: &[u8]) -> Result<Self, ParseError> {
        let bad = |why: String| ParseError::new("timeline history", why);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (line, number) in file.split(|byte| *byte == b'\n').zip(1..) {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let ancestor = Ancestor::parse(line).ok_or_else(|| {
                bad(format!("line {number}, {line:?}, is not a timeline, the position at which it was left, and why"))
            })?;
            if ancestors.last().is_some_and(|last| last.timeline >= ancestor.timeline) {
                return Err(bad(format!("line {number}: timeline {} does not follow in order", ancestor.timeline)));
            }
            if ancestor.timeline >= timeline {
                return Err(bad(format!(
                    "line {number}: timeline {} cannot be an ancestor of {timeline}",
                    ancestor.timeline
                )));
            }
            ancestors.push(ancestor);
        }
        Ok(Self { timeline, ancestors })
    }

    /// The position at which the timeline began; 0/0 for one without ancestors.
    pub fn begin(&self) -> Lsn {
        self.ancestors.last().map_or(Lsn(0), |parent| parent.end)
    }

    /// The timeline that it branched off from.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.ancestors.last()
    }

    /// Whether it is this timeline or one of its ancestors.
    pub fn contains(&self, timeline: TimelineId) -> bool {
        timeline == self.timeline || self.switch_point(timeline).is_some()
    }

    /// Where an ancestor was left; `None` for the timeline itself and for strangers.
    pub fn switch_point(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.ancestors.iter().find(|entry| entry.timeline == ancestor).map(|entry| entry.end)
    }

    /// The timeline that the byte at `lsn` belongs to (`tliOfPointInHistory`). Of an end position, ask for the byte before it.
    pub fn timeline_of(&self, lsn: Lsn) -> TimelineId {
        self.spans().into_iter().rev().find(|span| span.holds(lsn)).map_or(self.timeline, |span| span.timeline)
    }

    /// What each timeline contributes, oldest first, this one last. A span may be empty.
    pub fn spans(&self) -> Vec<Span> {
        let mut begin = Lsn(0);
        let mut spans = Vec::with_capacity(self.ancestors.len() + 1);
        for ancestor in &self.ancestors {
            spans.push(Span { timeline: ancestor.timeline, begin, end: Some(ancestor.end) });
            begin = ancestor.end;
        }
        spans.push(Span { timeline: self.timeline, begin, end: None });
        spans
    }

    /// Whether what `timeline` held up to `lsn` (the position after its last byte) is part of this history, so that a backup
    /// which ended there can be recovered along it.
    pub fn includes(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        timeline == self.timeline || self.switch_point(timeline).is_some_and(|end| lsn <= end)
    }
}

/// A timeline's share of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first position.
    pub begin: Lsn,
    /// The position after its last; none for the timeline that goes on.
    pub end: Option<Lsn>,
}

impl Span {
    fn holds(&self, lsn: Lsn) -> bool {
        self.begin <= lsn && self.end.is_none_or(|end| lsn < end)
    }
}

impl Ancestor {
    fn parse(line: &str) -> Option<Self> {
        let (number, rest) = line.split_once(|c: char| c.is_ascii_whitespace())?;
        let rest = rest.trim_ascii_start();
        let (end, reason) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let timeline = digits.then(|| number.parse().ok()).flatten().and_then(TimelineId::new)?;
        Some(Self { timeline, end: end.parse().ok()?, reason: reason.trim_ascii().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn parse(number: u32, text: &str) -> Result<TimelineHistory, ParseError> {
        TimelineHistory::parse(tli(number), text.as_bytes())
    }

    #[test]
    fn what_servers_write() {
        let history = parse(2, "1\t0/1500090\tno recovery target specified\n").unwrap();
        assert_eq!(
            history.ancestors,
            [Ancestor { timeline: tli(1), end: Lsn(0x150_0090), reason: "no recovery target specified".into() }]
        );
        // A time target's reason ends with a line break of its own, and a copied file is followed by another.
        let text =
            "1\t0/3000000\tbefore 2026-11-23 17:01:59+00\n\n\n# by hand\n   3\t1/00000090\tat restore point \"x\"\n";
        let history = parse(7, text).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[1].end, Lsn(0x1_0000_0090));
        assert_eq!(history.begin(), Lsn(0x1_0000_0090));
        assert_eq!(history.parent().unwrap().timeline, tli(3));
        assert_eq!(history.switch_point(tli(1)), Some(Lsn(0x300_0000)));
        assert_eq!(history.switch_point(tli(7)), None);
        for (number, inside) in [(1, true), (2, false), (3, true), (7, true), (8, false)] {
            assert_eq!(history.contains(tli(number)), inside, "{number}");
        }
        assert_eq!(parse(2, "").unwrap().ancestors, []);
    }

    #[test]
    fn which_timeline_a_position_is_on() {
        let history = parse(4, "1\t0/300\ta\n2\t0/500\tb\n").unwrap();
        for (lsn, timeline) in [(0, 1), (0x2FF, 1), (0x300, 2), (0x4FF, 2), (0x500, 4), (u64::MAX, 4)] {
            assert_eq!(history.timeline_of(Lsn(lsn)), tli(timeline), "{lsn:X}");
        }
        assert!(history.includes(tli(1), Lsn(0x300)) && !history.includes(tli(1), Lsn(0x301)));
        assert!(history.includes(tli(4), Lsn(u64::MAX)) && !history.includes(tli(3), Lsn(1)));
        assert_eq!(TimelineHistory::without_file(tli(1)).timeline_of(Lsn(9)), tli(1));
    }

    #[test]
    fn a_recovery_stopped_before_its_own_timeline_began() {
        // Recovery with timeline 2 as its target, stopped at 0/200 while 2 begins at 0/300: Postgres names 2 the parent.
        let history = parse(3, "1\t0/300\ta\n\n2\t0/200\tb\n").unwrap();
        for (lsn, timeline) in [(0x1FF, 1), (0x200, 3), (0x2FF, 3), (0x300, 3)] {
            assert_eq!(history.timeline_of(Lsn(lsn)), tli(timeline), "{lsn:X}");
        }
    }

    proptest! {
        /// Timelines that branch off one behind the other: each position is on exactly one, and on the same whichever way one asks.
        #[test]
        fn each_position_is_on_one_timeline(
            steps in proptest::collection::vec((1_u32..1000, 1_u64..1 << 40), 0..8),
            last in 1_u32..1000,
            position: u64,
            near in 0_usize..8,
        ) {
            let (mut text, mut number, mut end, mut ends) = (String::new(), 0, 0, vec![position]);
            for (step, length) in steps {
                (number, end) = (number + step, end + length);
                text.push_str(&format!("{number}\t{}\twhy\n\n", Lsn(end)));
                ends.extend([end - 1, end, end + 1]);
            }
            let history = parse(number + last, &text).unwrap();
            let position = Lsn(ends[near % ends.len()]);
            let on: Vec<_> = history.spans().into_iter().filter(|span| span.holds(position)).collect();
            prop_assert_eq!(on.len(), 1);
            prop_assert_eq!(history.timeline_of(position), on[0].timeline);
            prop_assert!(history.includes(on[0].timeline, position) && history.contains(on[0].timeline));
            prop_assert_eq!(history.switch_point(on[0].timeline), on[0].end);
            prop_assert_eq!(history.begin(), history.spans().last().unwrap().begin);
            prop_assert_eq!(history.parent().map(|parent| parent.end), history.parent().map(|_| history.begin()));
        }
    }

    #[test]
    fn what_no_server_writes() {
        for text in [
            "x\t0/1\tr",
            "1",
            "1\t",
            "1\t0",
            "1 0/x",
            "0\t0/1\tr",
            "+1\t0/1\tr",
            "4294967296\t0/1\tr",
            "2\t0/1\tr",
            "3\t0/1\tr",
            "1\t0/1\tr\n1\t0/2\tr",
            "<html>",
            "\u{0}",
            "1\t0/1FFFFFFFF\tr",
        ] {
            assert!(parse(2, text).is_err(), "{text:?}");
        }
        assert!(TimelineHistory::parse(tli(2), &[0xFF, 0xFE]).is_err());
    }
}
