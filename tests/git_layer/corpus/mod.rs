//! Hostile repositories and `.git` folders, as tables, and what it takes to run the product over them.

pub mod left_behind;
pub mod served;
pub mod yard;

/// How the product has to deal with a case.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// Every operation works, and what was honest arrives on the remote.
    Works,
    /// Some operation refuses it, in words that contain these.
    Refused(&'static str),
}
