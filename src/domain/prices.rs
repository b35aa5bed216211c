//! What tokens cost where no agent told it: a run that is ended before its report has tokens and no dollars.
//!
//! An estimate, marked as one wherever it goes. What the agent itself reported of the same model comes first, for it
//! knows of discounts, regions and new prices; else the list below counts; a model that neither knows has no price.

use std::collections::BTreeMap;

use super::usage::ModelUsage;

/// US dollars for a million tokens read, and for a million read from the cache, by model. From the catalogue of
/// models in Claude Code 2.1.332 (published 2026-11), which has the vendor's public prices.
const LISTED: [(&str, f64, f64); 24] = [
    ("claude-3-5-haiku", 0.8, 0.08),
    ("claude-haiku-4-5", 1.0, 0.1),
    ("claude-haiku-5-5", 0.1, 0.01),
    ("claude-3-5-sonnet", 3.0, 0.3),
    ("claude-3-7-sonnet", 3.0, 0.3),
    ("claude-sonnet-4", 3.0, 0.3),
    ("claude-sonnet-4-5", 3.0, 0.3),
    ("claude-sonnet-4-6", 3.0, 0.3),
    ("claude-sonnet-5", 2.0, 0.2),
    ("claude-sonnet-5-5", 2.0, 0.1),
    ("claude-opus-4", 15.0, 1.5),
    ("claude-opus-4-1", 15.0, 1.5),
    ("claude-opus-4-5", 5.0, 0.5),
    ("claude-opus-4-6", 5.0, 0.5),
    ("claude-opus-4-7", 5.0, 0.5),
    ("claude-opus-4-8", 5.0, 0.5),
    ("claude-opus-5", 5.0, 0.5),
    ("claude-opus-5-5", 4.0, 0.2),
    ("claude-fable-5", 10.0, 1.0),
    ("claude-fable-5-1", 10.0, 0.25),
    ("claude-fable-5-2", 8.0, 0.2),
    ("claude-mythos-5", 10.0, 1.0),
    ("claude-mythos-5-1", 10.0, 0.25),
    ("claude-mythos-5-2", 8.0, 0.2),
];

/// How much dearer than reading a token it is to write one, and to write one to the cache for five minutes or
/// for an hour: the same for every model of that list.
const OUTPUT: f64 = 5.0;
const WRITE_5M: f64 = 1.25;
const WRITE_1H: f64 = 2.0;
/// How much of that reading from the cache costs, as most models have it.
const READ: f64 = 0.1;
/// How far what was reported may lie from the list, in either direction. Reports are the word of an agent, and
/// those of one order must not make the estimates of all others absurd.
const FARTHEST: f64 = 4.0;

/// The prices of one model.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Price {
    /// US dollars for a token read.
    input: f64,
    /// What reading from the cache costs of that.
    read: f64,
}

impl Price {
    /// From the list; a date, a provider's prefix and a suffix are no part of the name there.
    fn listed(model: &str) -> Option<Self> {
        let is_same = |listed: &str| {
            let rest = model.find(listed).and_then(|at| model.get(at + listed.len()..));
            rest.is_some_and(ends_name)
        };
        let (_, input, read) = LISTED.iter().find(|(listed, ..)| is_same(listed))?;
        Some(Self { input: input / 1e6, read: read / input })
    }

    fn of(self, usage: &ModelUsage) -> f64 {
        self.input * weight(usage, self.read)
    }
}

/// Whether a name ends here, or only its date or the provider's version follows: `-4` and `-4-5` are two models.
fn ends_name(rest: &str) -> bool {
    let Some(rest) = rest.strip_prefix('-') else {
        return !rest.starts_with(char::is_alphanumeric);
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    digits >= 6 || rest.starts_with('v') || rest == "latest"
}

/// Tokens, each as often as it is dearer than one that is read.
#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more digits")]
fn weight(usage: &ModelUsage, read: f64) -> f64 {
    usage.input_tokens as f64
        + usage.output_tokens as f64 * OUTPUT
        + usage.cache_read_tokens as f64 * read
        + usage.cache_creation_5m_tokens as f64 * WRITE_5M
        + usage.cache_creation_1h_tokens as f64 * WRITE_1H
}

/// What models cost, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    reported: BTreeMap<String, Vec<ModelUsage>>,
}

impl Prices {
    /// Takes what a run used of a model, and the dollars that its agent reported for that.
    pub fn learn(&mut self, model: &str, usage: ModelUsage) {
        self.reported.entry(model.to_owned()).or_default().push(usage);
    }

    /// What this costs by estimate.
    pub fn estimate(&self, model: &str, usage: &ModelUsage) -> Option<f64> {
        let listed = Price::listed(model);
        let read = listed.map_or(READ, |price| price.read);
        let input = match (self.reported_input(model, read), listed) {
            (Some(reported), Some(Price { input, .. })) => {
                reported.clamp(input / FARTHEST, input * FARTHEST)
            }
            (Some(reported), None) => reported,
            (None, listed) => listed?.input,
        };
        Some(Price { input, read }.of(usage))
    }

    /// The median of what a token read has cost by the reports: one absurd report changes nothing.
    fn reported_input(&self, model: &str, read: f64) -> Option<f64> {
        let runs = self.reported.get(model)?.iter();
        let mut inputs: Vec<f64> = runs
            .map(|usage| usage.cost_usd / weight(usage, read))
            .filter(|input| input.is_finite() && *input > 0.0)
            .collect();
        inputs.sort_by(f64::total_cmp);
        inputs.get(inputs.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{ModelUsage, Prices};

    const MILLION: u64 = 1_000_000;

    fn used(tokens: [u64; 5], cost_usd: f64) -> ModelUsage {
        ModelUsage { cost_usd, ..tokens.into() }
    }

    fn estimate(prices: &Prices, model: &str, tokens: [u64; 5]) -> Option<f64> {
        prices.estimate(model, &tokens.into()).map(|usd| (usd * 1e6).round() / 1e6)
    }

    #[test]
    fn the_list_knows_models_by_any_providers_name_for_them() {
        let listed = |model| estimate(&Prices::default(), model, [MILLION, 0, 0, 0, 0]);
        for model in [
            "claude-sonnet-4-5",
            "claude-sonnet-4-5-20250929",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "claude-3-7-sonnet@20250219",
            "claude-3-5-sonnet-latest",
        ] {
            assert_eq!(listed(model), Some(3.0), "{model}");
        }
        assert_eq!(listed("claude-sonnet-5-5"), Some(2.0));
        assert_eq!(listed("claude-opus-4-20250514"), Some(15.0));
        assert_eq!(listed("claude-opus-4-5-20251101"), Some(5.0));
        for model in
            ["claude-sonnet-7", "claude-opus-4-9", "claude-opus-40", "gpt-9", "unknown", ""]
        {
            assert_eq!(listed(model), None, "{model}");
        }
    }

    #[test]
    fn each_kind_of_tokens_has_its_price() {
        let prices = Prices::default();
        let each = |kind: usize| {
            let mut tokens = [0; 5];
            tokens[kind] = MILLION;
            estimate(&prices, "claude-opus-5-5", tokens)
        };
        assert_eq!([0, 1, 2, 3, 4].map(each), [4.0, 20.0, 0.2, 5.0, 8.0].map(Some));
    }

    #[test]
    fn what_was_reported_comes_before_the_list() {
        let mut prices = Prices::default();
        // Half the list's price: 1.5 for input, 7.5 for output.
        prices.learn("claude-sonnet-4-5", used([MILLION, MILLION, 0, 0, 0], 9.0));
        assert_eq!(estimate(&prices, "claude-sonnet-4-5", [0, MILLION, 0, 0, 0]), Some(7.5));
        prices.learn("house-model", used([MILLION, 0, 0, 0, 0], 0.5));
        assert_eq!(estimate(&prices, "house-model", [2 * MILLION, 0, 0, 0, 0]), Some(1.0));
    }

    #[test]
    fn one_absurd_report_changes_nothing_and_many_change_little() {
        let mut prices = Prices::default();
        for _ in 0..3 {
            prices.learn("house-model", used([MILLION, 0, 0, 0, 0], 0.5));
        }
        prices.learn("house-model", used([1, 0, 0, 0, 0], 100_000.0));
        prices.learn("house-model", used([0; 5], 1.0));
        assert_eq!(estimate(&prices, "house-model", [MILLION, 0, 0, 0, 0]), Some(0.5));
        for _ in 0..25 {
            prices.learn("claude-opus-5", used([1, 0, 0, 0, 0], 100_000.0));
        }
        assert_eq!(estimate(&prices, "claude-opus-5", [MILLION, 0, 0, 0, 0]), Some(20.0));
    }
}
