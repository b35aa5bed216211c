//! What agents consume, by model, and which part of a reported total belongs to one run.
//!
//! An agent reports totals, and does not say of what: those of CLI 2.1.138 are of the run, those of 2.1.332
//! of the whole conversation, with what interrupted runs of it used as far as the CLI could still note that.
//! So the total of a run that goes on with a conversation is compared with what its messages showed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::prices::Prices;

/// Most tokens of a kind that are believed: a thousand times what any real run uses.
const MOST_TOKENS: u64 = 1_000_000_000_000;
/// Most US dollars that are believed.
const MOST_USD: f64 = 100_000.0;
/// Most models told apart; only a program that makes names up has more.
const MOST_MODELS: usize = 16;
/// Where everything goes whose model is not known.
const UNKNOWN_MODEL: &str = "unknown";
/// Most points at which a conversation may have stood before a run that are compared.
const MOST_POINTS: usize = 64;

/// What one model was used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelUsage {
    /// Tokens read that no cache held.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Tokens written to the provider's cache for five minutes.
    pub cache_creation_5m_tokens: u64,
    /// Tokens written to the provider's cache for an hour.
    pub cache_creation_1h_tokens: u64,
    /// US dollars, by the agent's own prices; where it did not say, by an estimate, or nothing.
    pub cost_usd: f64,
    /// Of these, what was estimated from the tokens.
    #[serde(skip_serializing_if = "is_nothing")]
    pub estimated_usd: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_nothing(usd: &f64) -> bool {
    *usd <= 0.0
}

impl ModelUsage {
    /// Tokens written to the provider's cache, for however long.
    pub fn cache_creation_tokens(&self) -> u64 {
        self.cache_creation_5m_tokens.saturating_add(self.cache_creation_1h_tokens)
    }

    /// The same with nothing that no run can have used: numbers come from the agent, and columns have an end.
    #[must_use]
    pub fn believable(self) -> Self {
        let usd = |usd: f64| if usd.is_finite() { usd.clamp(0.0, MOST_USD) } else { 0.0 };
        let tokens = self.tokens().map(|tokens| tokens.min(MOST_TOKENS));
        let cost_usd = usd(self.cost_usd);
        Self { cost_usd, estimated_usd: usd(self.estimated_usd).min(cost_usd), ..tokens.into() }
    }

    /// The larger of the two, kind by kind.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        let cost_usd = self.cost_usd.max(other.cost_usd);
        let estimated_usd = self.estimated_usd.max(other.estimated_usd);
        Self { cost_usd, estimated_usd, ..self.zip(other, u64::max) }
    }

    fn plus(self, other: Self) -> Self {
        let cost_usd = self.cost_usd + other.cost_usd;
        let estimated_usd = self.estimated_usd + other.estimated_usd;
        Self { cost_usd, estimated_usd, ..self.zip(other, u64::saturating_add) }.believable()
    }

    /// What is left without `other`; nothing when that is more.
    fn less(self, other: Self) -> Option<Self> {
        let enough = self.tokens().iter().zip(other.tokens()).all(|(mine, theirs)| *mine >= theirs);
        let cost_usd = (self.cost_usd - other.cost_usd).max(0.0);
        let estimated_usd = (self.estimated_usd - other.estimated_usd).max(0.0);
        enough.then(|| Self { cost_usd, estimated_usd, ..self.zip(other, u64::saturating_sub) })
    }

    /// By how many tokens the two differ.
    fn distance(self, other: Self) -> u64 {
        self.zip(other, u64::abs_diff).tokens().into_iter().fold(0, u64::saturating_add)
    }

    fn is_zero(self) -> bool {
        self.tokens().iter().all(|tokens| *tokens == 0) && self.cost_usd <= 0.0
    }

    fn tokens(self) -> [u64; 5] {
        [
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_creation_5m_tokens,
            self.cache_creation_1h_tokens,
        ]
    }

    fn zip(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        let (mine, theirs) = (self.tokens(), other.tokens());
        std::array::from_fn(|kind| each(mine[kind], theirs[kind])).into()
    }
}

impl From<[u64; 5]> for ModelUsage {
    fn from(tokens: [u64; 5]) -> Self {
        let [input_tokens, output_tokens, cache_read_tokens, minutes, hour] = tokens;
        Self {
            input_tokens,
            output_tokens,
            cache_read_tokens,
            cache_creation_5m_tokens: minutes,
            cache_creation_1h_tokens: hour,
            ..Self::default()
        }
    }
}

/// What was consumed, by model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usage {
    by_model: BTreeMap<String, ModelUsage>,
}

impl Usage {
    /// Adds what a model was used for. Its name is the agent's word: the size of the context in brackets is no
    /// part of it, and what is no name counts as unknown.
    pub fn add(&mut self, model: &str, usage: ModelUsage) {
        if usage.is_zero() {
            return;
        }
        let name = model.split('[').next().unwrap_or_default().trim();
        let is_name = (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        let has_room = self.by_model.contains_key(name) || self.by_model.len() < MOST_MODELS;
        let name = if is_name && has_room { name } else { UNKNOWN_MODEL };
        let sum = self.by_model.entry(name.to_owned()).or_default();
        *sum = sum.plus(usage.believable());
    }

    /// Adds everything of another.
    pub fn merge(&mut self, other: &Self) {
        for (model, usage) in &other.by_model {
            self.add(model, *usage);
        }
    }

    /// The sum over all models.
    pub fn total(&self) -> ModelUsage {
        self.by_model.values().fold(ModelUsage::default(), |sum, usage| sum.plus(*usage))
    }

    /// Each model with what it was used for, by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &ModelUsage)> {
        self.by_model.iter().map(|(model, usage)| (model.as_str(), usage))
    }

    /// Whether nothing was consumed.
    pub fn is_zero(&self) -> bool {
        self.by_model.is_empty()
    }

    /// Estimates what nobody told the price of.
    fn estimate(&mut self, prices: &Prices) {
        for (model, usage) in &mut self.by_model {
            if usage.cost_usd <= 0.0
                && let Some(usd) = prices.estimate(model, usage)
            {
                *usage = ModelUsage { cost_usd: usd, estimated_usd: usd, ..*usage }.believable();
            }
        }
    }

    /// What is left without `other`; nothing when that has more of anything.
    fn less(&self, other: &Self) -> Option<Self> {
        let mut left = self.clone();
        for (model, usage) in &other.by_model {
            let mine = left.by_model.entry(model.clone()).or_default();
            *mine = mine.less(*usage)?;
        }
        left.by_model.retain(|_, usage| !usage.is_zero());
        Some(left)
    }
}

/// What became known of the consumption of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunUsage {
    /// The last total the agent reported, of the run or of its conversation: it does not say.
    pub reported: Option<Usage>,
    /// That total is of this run alone: the agent is of a kind that has no others.
    pub is_of_run: bool,
    /// What the messages until then showed.
    pub heard: Usage,
    /// What the messages since then showed: all of them in a run that did not come to its report.
    pub unreported: Usage,
    /// ... those of them that had come to their end. A later total of the conversation may hold them.
    pub unreported_ended: Usage,
    /// Turns of the conversation, as the agent counts them.
    pub num_turns: u64,
}

/// What an earlier run left behind in the conversation that a run goes on with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlierRun {
    /// The last total it reported.
    pub reported: Option<Usage>,
    /// What it consumed after that and had come to its end.
    pub unreported: Usage,
}

impl RunUsage {
    /// The models of which something was consumed after the last report, so that nobody told its price.
    pub fn unpriced(&self) -> Vec<String> {
        self.unreported.models().map(|(model, _)| model.to_owned()).collect()
    }

    /// Estimates what the agent did not come to report. A later total of the conversation that holds it is then
    /// less by the same estimate, so that both together are what was reported.
    pub fn estimate(&mut self, prices: &Prices) {
        self.unreported.estimate(prices);
        self.unreported_ended.estimate(prices);
    }

    /// What this run consumed. `earlier` are the runs of the conversation that it went on with, in their order,
    /// at least from the last one that reported; none of a run that began one.
    pub fn consumed(&self, earlier: &[EarlierRun]) -> Usage {
        let mut consumed = match &self.reported {
            Some(total) if self.is_of_run => total.clone(),
            Some(total) => self.part_of(total, earlier),
            None => Usage::default(),
        };
        consumed.merge(&self.unreported);
        for usage in consumed.by_model.values_mut() {
            // What a column holds, so that sums of rows are the same everywhere.
            usage.cost_usd = (usage.cost_usd * 1e6).round() / 1e6;
            usage.estimated_usd = (usage.estimated_usd * 1e6).round() / 1e6;
        }
        consumed
    }

    /// What a later run of the conversation has to know.
    pub fn left_behind(&self) -> EarlierRun {
        EarlierRun { reported: self.reported.clone(), unreported: self.unreported_ended.clone() }
    }

    /// The part of a total that this run consumed: the whole, or what came after a point at which the
    /// conversation may have stood before; that which is closest to what was heard of it.
    fn part_of(&self, total: &Usage, earlier: &[EarlierRun]) -> Usage {
        let heard = self.heard.total();
        let parts = standing_points(earlier).into_iter().filter_map(|point| total.less(&point));
        let closest = parts.min_by_key(|part| part.total().distance(heard));
        closest.unwrap_or_else(|| total.clone())
    }
}

/// The totals that a conversation may have had after these runs. Of one that was interrupted the agent may have
/// noted what it consumed, or not: killed at once, it did not.
fn standing_points(earlier: &[EarlierRun]) -> Vec<Usage> {
    let mut points = vec![Usage::default()];
    for run in earlier {
        if let Some(total) = &run.reported {
            points = vec![total.clone()];
        }
        if !run.unreported.is_zero() && points.len() < MOST_POINTS {
            let noted = points.iter().cloned().map(|mut point| {
                point.merge(&run.unreported);
                point
            });
            points = points.iter().cloned().chain(noted).collect();
        }
    }
    // The agent counts anew with each run.
    points.push(Usage::default());
    points
}

#[cfg(test)]
mod tests;
