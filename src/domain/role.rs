//! As whom an agent works: what one role leaves in its home must not steer another.

/// The part an agent has in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Changes the code, and says what it changed.
    Author,
    /// Plans what the author does.
    Planner,
    /// Judges what the author did.
    Reviewer,
}

impl Role {
    /// What its folders have in their names; nothing in those of the author.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Author => "",
            Self::Planner => "-planner",
            Self::Reviewer => "-reviewer",
        }
    }

    /// Whether it changes the code; the others only look at it.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Author)
    }
}
