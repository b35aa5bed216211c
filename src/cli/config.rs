//! `archon-awo config`: every setting, its value and where it comes from.

use super::output::{Output, plain};
use crate::config::Config;

pub(super) fn run(config: &Config, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.document(&serde_json::json!({ "settings": config.settings() }));
    }
    let rows: Vec<Vec<String>> = config
        .settings()
        .iter()
        .map(|setting| {
            let value = setting.value.as_deref().map_or_else(|| "-".to_owned(), plain);
            vec![setting.name.to_owned(), value, setting.source.to_string()]
        })
        .collect();
    output.table(&["SETTING", "VALUE", "SOURCE"], &rows)?;
    Ok(())
}
