//! Where in a text a step begins: in which kind of line, and what a line end looks like there.

/// Where a step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: Line,
    /// How many backslashes a line end has: those of JSON, or none.
    pub(super) level: usize,
    /// Bytes left out since the last one that was kept.
    pub(super) gap: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// At its beginning.
    Start,
    /// At the beginning of one behind a line of a dump, which may show the same bytes in another way.
    AfterDump,
    Text,
    /// Behind the address of a line of a dump: how many groups were seen, whether `xxd` wrote it, and
    /// whether all groups were numbers.
    Dump {
        groups: u8,
        colon: bool,
        numbers: bool,
    },
    /// In the characters that a dump shows beside the numbers.
    Column(u16),
}

impl Default for Place {
    fn default() -> Self {
        Self { line: Line::Start, level: 0, gap: 0 }
    }
}

impl Place {
    /// In a text that has begun: a needle.
    pub(super) fn inside() -> Self {
        Self { line: Line::Text, ..Self::default() }
    }

    /// Behind a line of a dump.
    pub(super) fn behind_dump(self) -> bool {
        self.line == Line::AfterDump
    }

    /// In a line of a dump that has an address of its own.
    pub(super) fn has_address(self) -> bool {
        matches!(self.line, Line::Dump { .. })
    }

    /// Inside a line of a dump, which ends later.
    pub(super) fn in_dump(self) -> bool {
        matches!(self.line, Line::Dump { groups: 1.., .. } | Line::Column(_))
    }
}
