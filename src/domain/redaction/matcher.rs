//! Finds many needles at once.
//!
//! Every needle has at least eight bytes, so that wherever it stands, one of the blocks of three bytes at every
//! sixth place of the text is one of its first. Only where such a block is known the eight bytes around it are
//! looked up, and what begins like a needle is then compared in full.

use super::MIN_LENGTH;

/// Bytes of a block, and how far apart two of them are looked at.
const BLOCK: usize = 3;
const STRIDE: usize = MIN_LENGTH - BLOCK + 1;
/// Bits of a block's place in the table, and of a beginning's.
const BLOCK_BITS: u32 = 16;
const STEM_BITS: u32 = 15;

/// What is searched for.
#[derive(Debug, Clone)]
pub(super) struct Needle {
    pub(super) form: Vec<u8>,
    /// It cannot be an ordinary word.
    pub(super) strong: bool,
    /// So many bytes beside it belong to the secret too, in part.
    pub(super) margin: usize,
}

/// Needles, ready to be searched for.
#[derive(Default)]
pub(super) struct Matcher {
    /// The first bytes of every needle, sorted, each with the needles that begin so.
    stems: Vec<(u64, Vec<Needle>)>,
    /// For each block, at which places of a needle's beginning it stands: one bit each.
    blocks: Vec<u8>,
    /// Which beginnings there may be: one bit each.
    known: Vec<u64>,
}

impl Matcher {
    /// Of needles that are sorted by their form.
    pub(super) fn new(needles: impl Iterator<Item = Needle>) -> Self {
        let mut stems: Vec<(u64, Vec<Needle>)> = Vec::new();
        for needle in needles {
            let Some(stem) = stem(&needle.form) else { continue };
            match stems.last_mut() {
                Some((last, alike)) if *last == stem => alike.push(needle),
                _ => stems.push((stem, vec![needle])),
            }
        }
        if stems.is_empty() {
            return Self::default();
        }
        let (mut blocks, mut known) = (vec![0; 1 << BLOCK_BITS], vec![0; 1 << (STEM_BITS - 6)]);
        for (stem, _) in &stems {
            let bytes = stem.to_be_bytes();
            for place in 0..STRIDE {
                let index = block_index(bytes[place], bytes[place + 1], bytes[place + 2]);
                blocks[index] |= 1 << place;
            }
            let bit = stem_index(*stem);
            known[bit / 64] |= 1 << (bit % 64);
        }
        Self { stems, blocks, known }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stems.is_empty()
    }

    /// Calls `found` for each place where `text` has the first bytes of some needles, with these.
    pub(super) fn candidates<'a>(
        &'a self,
        text: &[u8],
        mut found: impl FnMut(usize, &'a [Needle]),
    ) {
        if self.is_empty() {
            return;
        }
        // Indices, so that tests, which are not optimized, have time for it too.
        let mut block = 0;
        while block + BLOCK <= text.len() {
            let mut places =
                self.blocks[block_index(text[block], text[block + 1], text[block + 2])];
            block += STRIDE;
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                places &= places - 1;
                let Some(at) = (block - STRIDE).checked_sub(place) else { continue };
                if let Some(needles) = stem(&text[at..]).and_then(|stem| self.beginning_with(stem))
                {
                    found(at, needles);
                }
            }
        }
    }

    fn beginning_with(&self, stem: u64) -> Option<&[Needle]> {
        let bit = stem_index(stem);
        if self.known[bit / 64] & (1 << (bit % 64)) == 0 {
            return None;
        }
        let at = self.stems.binary_search_by_key(&stem, |(stem, _)| *stem).ok()?;
        Some(&self.stems[at].1)
    }

    /// Where the end of `text` begins that a needle may begin with; shorter than a beginning.
    pub(super) fn begun(&self, text: &[u8]) -> Option<usize> {
        let first = (text.len() + 1).saturating_sub(MIN_LENGTH);
        (first..text.len()).find(|at| {
            let tail = &text[*at..];
            let mut bytes = [0; MIN_LENGTH];
            bytes[..tail.len()].copy_from_slice(tail);
            let least = u64::from_be_bytes(bytes);
            let most = least | (u64::MAX >> (8 * tail.len()));
            // Those that begin with `tail` stand right behind all that are smaller.
            let after = self.stems.partition_point(|(stem, _)| *stem < least);
            self.stems.get(after).is_some_and(|(stem, _)| *stem <= most)
        })
    }
}

/// The first bytes of a text, so that numbers are in the order of the texts.
fn stem(text: &[u8]) -> Option<u64> {
    text.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn block_index(one: u8, two: u8, three: u8) -> usize {
    let number = u32::from(one) << 16 | u32::from(two) << 8 | u32::from(three);
    (number.wrapping_mul(0x9E37_79B1) >> (u32::BITS - BLOCK_BITS)) as usize
}

fn stem_index(stem: u64) -> usize {
    (stem.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - STEM_BITS)) as usize
}
