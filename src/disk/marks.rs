//! How much must be free: marks below which a worker takes no more orders, or cleans up at once.

use std::fmt;

use super::Space;

/// An amount, as a number, a part of the whole, or both: then the smaller of the two counts, so that
/// one default suits large disks and small ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Mark {
    amount: Option<u64>,
    percent: Option<f64>,
}

/// The marks of every volume.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DiskMarks {
    /// `AWO_DISK_SOFT_FREE`: with fewer bytes free no order is claimed.
    pub soft_bytes: Mark,
    /// `AWO_DISK_HARD_FREE`: with fewer the worker is not ready, and cleans up at once.
    pub hard_bytes: Mark,
    /// `AWO_DISK_SOFT_INODES`: the same for files and folders.
    pub soft_inodes: Mark,
    /// `AWO_DISK_HARD_INODES`.
    pub hard_inodes: Mark,
}

/// How a volume stands; the later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// There is room.
    #[default]
    Ample,
    /// Below the soft mark: what runs goes on, nothing new is begun.
    Low,
    /// Below the hard mark.
    Full,
    /// Not to be entered or written to: somebody closed it.
    Closed,
}

impl Mark {
    /// Reads `5GiB`, `10%`, `10%, 5GiB`, or `off`. `amount` reads the part that is no percentage.
    pub fn parse(text: &str, amount: impl Fn(&str) -> Option<u64>) -> Option<Self> {
        let mut mark = Self::default();
        if text.eq_ignore_ascii_case("off") {
            return Some(mark);
        }
        for part in text.split(',').map(str::trim) {
            if let Some(number) = part.strip_suffix('%') {
                let percent = number.trim().parse().ok().filter(|p| (0.0..=99.0).contains(p))?;
                mark.percent.is_none().then_some(())?;
                mark.percent = Some(percent);
            } else {
                mark.amount.is_none().then_some(())?;
                mark.amount = Some(amount(part)?);
            }
        }
        Some(mark)
    }

    /// The amount on a volume with this much in all; 0 when the mark is off.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a volume need not be exact"
    )]
    pub fn of(&self, total: u64) -> u64 {
        let share = self.percent.map(|percent| (total as f64 * percent / 100.0) as u64);
        self.amount.into_iter().chain(share).min().unwrap_or_default()
    }
}

impl DiskMarks {
    /// How a volume with this space stands, and what it lacks: the setting, what is free and what
    /// should be, in words.
    pub fn judge(&self, space: &Space) -> (Level, Option<String>) {
        let bytes = |mark: &Mark, setting| {
            let least = mark.of(space.total_bytes);
            (space.free_bytes < least).then(|| {
                let (free, least) = (size_text(space.free_bytes), size_text(least));
                format!("{free} are free, less than {setting} ({least})")
            })
        };
        let inodes = |mark: &Mark, setting| {
            let least = mark.of(space.total_inodes);
            (space.total_inodes > 0 && space.free_inodes < least).then(|| {
                let free = space.free_inodes;
                format!("{free} inodes are free, less than {setting} ({least})")
            })
        };
        let hard = bytes(&self.hard_bytes, "AWO_DISK_HARD_FREE")
            .or_else(|| inodes(&self.hard_inodes, "AWO_DISK_HARD_INODES"));
        if hard.is_some() {
            return (Level::Full, hard);
        }
        let soft = bytes(&self.soft_bytes, "AWO_DISK_SOFT_FREE")
            .or_else(|| inodes(&self.soft_inodes, "AWO_DISK_SOFT_INODES"));
        (if soft.is_some() { Level::Low } else { Level::Ample }, soft)
    }
}

/// Longer names first, and `b`, which ends most of them, last.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// `5GiB`, `5G`, `1.5 TB`, `4096`: a number of bytes. A single letter stands for a power of 1024.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "people write sizes with few digits"
)]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((&text, 1));
    let number: f64 = number.trim().parse().ok()?;
    let bytes = number * unit as f64;
    (number >= 0.0 && bytes < 1e18).then_some(bytes as u64)
}

/// A number of bytes for people.
pub fn size_text(bytes: u64) -> String {
    let binary = UNITS[..4].iter().rev().find(|(_, unit)| bytes >= *unit);
    let Some((name, unit)) = binary else { return format!("{bytes} bytes") };
    let name = match *name {
        "kib" => "KiB",
        "mib" => "MiB",
        "gib" => "GiB",
        _ => "TiB",
    };
    let tenths = u128::from(bytes) * 10 / u128::from(*unit);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenth) => format!("{whole}.{tenth} {name}"),
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Full => "full",
            Self::Closed => "closed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskMarks, Level, Mark, Space, parse_size, size_text};

    #[test]
    fn sizes_are_read_and_shown_as_people_write_them() {
        for (text, bytes) in [
            ("5GiB", 5 << 30),
            ("1.5 mib", 3 << 19),
            ("4096", 4096),
            ("0", 0),
            ("2GB", 2_000_000_000),
            ("512M", 512 << 20),
            ("512mib", 512 << 20),
            ("16 g", 16 << 30),
            ("3T", 3 << 40),
            ("1k", 1024),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in
            ["", "-1", "much", "5 PiB", "G", "4X", "-4G", "99999999999T", "NaN", "inf", "1e30"]
        {
            assert_eq!(parse_size(bad), None, "{bad:?} was accepted");
        }
        assert_eq!((size_text(5 << 30), size_text(3 << 19)), ("5 GiB".into(), "1.5 MiB".into()));
        assert_eq!(size_text(12), "12 bytes");
    }

    #[test]
    fn of_two_amounts_the_smaller_counts() {
        let mark = Mark::parse("5%, 2GiB", parse_size).unwrap();
        assert_eq!(mark.of(1 << 40), 2 << 30);
        assert_eq!(mark.of(64 << 20), (64 << 20) / 20);
        assert_eq!(Mark::parse("off", parse_size).unwrap().of(1 << 40), 0);
        for bad in ["", "5%,6%", "100%", "1GiB,2GiB", "-1%", "5%,"] {
            assert_eq!(Mark::parse(bad, parse_size), None, "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_volume_is_low_or_full_by_bytes_or_by_inodes() {
        let mark = |text| Mark::parse(text, parse_size).unwrap();
        let marks = DiskMarks {
            soft_bytes: mark("100"),
            hard_bytes: mark("10"),
            soft_inodes: mark("50"),
            hard_inodes: mark("5"),
        };
        let level = |free_bytes, free_inodes, total_inodes| {
            let space = Space { total_bytes: 1000, free_bytes, total_inodes, free_inodes };
            let (level, lacks) = marks.judge(&space);
            assert_eq!(level == Level::Ample, lacks.is_none());
            (level, lacks.unwrap_or_default())
        };
        assert_eq!(level(100, 50, 100).0, Level::Ample);
        assert_eq!(level(99, 50, 100).0, Level::Low);
        assert_eq!(level(9, 50, 100).0, Level::Full);
        assert_eq!(level(100, 49, 100).0, Level::Low);
        let (full, words) = level(100, 4, 100);
        assert_eq!(full, Level::Full);
        assert_eq!(words, "4 inodes are free, less than AWO_DISK_HARD_INODES (5)");
        assert_eq!(
            level(100, 0, 0).0,
            Level::Ample,
            "this file system has no inodes to run out of"
        );
    }
}
