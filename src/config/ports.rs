//! Which ports running orders get.

use std::ops::RangeInclusive;

use super::{ConfigError, keys, source::Reader, values};
use crate::ports::PortPool;

/// The lowest port that needs no privilege.
const LOWEST: u16 = 1024;

/// Reads `AWO_PORT_RANGE` and `AWO_PORTS_PER_ORDER`; `None` when orders get no ports. `orders` is how
/// many this worker runs at once: each must be able to have a range.
pub(super) fn read(reader: &mut Reader, orders: u16) -> Result<Option<PortPool>, ConfigError> {
    let per_order = reader.value(&keys::PORTS_PER_ORDER, values::number(1..=100))?;
    let (range, text) =
        reader.value(&keys::PORT_RANGE, |text| Some((range_or_off(text)?, text.to_owned())))?;
    let Some(range) = range else { return Ok(None) };
    let pool = PortPool::new(range, per_order);
    if pool.ranges() < usize::from(orders) {
        let per_order = per_order.next_multiple_of(10);
        return Err(ConfigError::Conflict {
            name: keys::PORT_RANGE.name(),
            value: text,
            expected: format!(
                "room for AWO_MAX_CONCURRENT ({orders}) ranges of {per_order} ports, or off"
            ),
        });
    }
    Ok(Some(pool))
}

/// `20000-29999`, or nothing for `off`.
#[expect(clippy::option_option, reason = "outside: understood or not; inside: a range or none")]
fn range_or_off(text: &str) -> Option<Option<RangeInclusive<u16>>> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    let (low, high) = text.split_once('-')?;
    let port = |text: &str| values::number(LOWEST..=u16::MAX)(text.trim());
    let (low, high) = (port(low)?, port(high)?);
    (low < high).then_some(Some(low..=high))
}
