//! Sets aside what another order left under the same id: its sandbox, after its work was saved, and its
//! files. The order was deleted since, and this one must not go on where that one stopped.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tracing::warn;

use super::{
    Workflow,
    failure::{Failure, StepError, volume},
    order::Order,
};
use crate::{
    config::SET_ASIDE,
    disk::{Reserve, write_whole},
    domain::{ErrorClass, RepositoryUrl, WorkOrderId},
    git::Remote,
};

/// Says in the folder of an order which of the orders with its id the files belong to.
const NOTE: &str = "generation";
/// So much of an id is left in the name of a folder that was set aside: with the generation it is one again.
const ID_KEPT: usize = 40;

/// Sets aside what is another order's; answers what was found, for the log of this one.
pub(super) async fn set_aside(
    workflow: &Workflow,
    order: &Order,
) -> Result<Option<Value>, StepError> {
    let Some(generation) = order.plan.generation else { return Ok(None) };
    let former = workflow.git.recorded_generation(&order.id).await?;
    let former = former.filter(|former| *former != generation);
    let bundle = match former {
        Some(_) => retire(workflow, &order.id).await?,
        None => None,
    };
    let root = workflow.settings.work_orders.clone();
    let (id, reserve) = (order.id.clone(), Reserve::on(&root));
    let place = root.join(id.as_str());
    let moving = tokio::task::spawn_blocking(move || move_files(&root, &id, generation, former));
    let moved = match moving.await {
        Ok(moved) => moved.map_err(|error| volume(&place, &error))?,
        Err(_) => return Err(StepError::Stopped(crate::lease::StopReason::Draining)),
    };
    let note = place.join(NOTE);
    if let Err(error) = write_whole(&note, generation.to_string().as_bytes(), &reserve).await {
        warn!(work_order.id = %order.id, "cannot write {}: {error}", note.display());
    }
    if former.is_none() && moved.is_none() {
        return Ok(None);
    }
    let bundle = bundle.map(|name| format!("bundles/{name}"));
    Ok(Some(json!({ "files": moved, "sandbox": former.is_some(), "bundle": bundle })))
}

/// Saves the work of a sandbox beside the files of its order, and takes it away; answers the bundle's name.
async fn retire(workflow: &Workflow, order: &WorkOrderId) -> Result<Option<String>, StepError> {
    let git = &workflow.git;
    let Some(claim) = git.claim_sandbox(order).await? else {
        let text = format!(
            "the sandbox of an earlier order with the id {order}, which was deleted, is still held by \
             its agent or being cleaned up"
        );
        return Err(Failure { waits: true, ..Failure::new(ErrorClass::LostWorker, text) }.into());
    };
    let url = git.recorded_url(order).await?;
    let url =
        url.and_then(|url| RepositoryUrl::parse(url.clone_url(), &workflow.settings.remotes).ok());
    let remote = url.map(|url| {
        let credential = workflow.settings.credentials.for_url(&url);
        Remote { url, credential }
    });
    let folder = workflow.settings.work_orders.join(order.as_str()).join("bundles");
    let saved = claim.save(remote.as_ref(), &folder).await?;
    // It moves along with the folder.
    claim.save_left_out(&folder).await?;
    claim.discard().await?.delete().await?;
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(saved.and_then(|bundle| name(bundle.path)))
}

/// Moves the folder of another order away; answers where it is, below `AWO_WORK_ORDER_DIR`.
fn move_files(
    root: &Path,
    order: &WorkOrderId,
    generation: i64,
    former: Option<i64>,
) -> io::Result<Option<String>> {
    let folder = root.join(order.as_str());
    fs::create_dir_all(&folder)?;
    let noted = fs::read_to_string(folder.join(NOTE)).ok();
    let noted: Option<i64> = noted.and_then(|text| text.trim().parse().ok());
    // Without a note it is of an older version, and its sandbox tells.
    let Some(former) = noted.or(former).filter(|former| *former != generation) else {
        return Ok(None);
    };
    let id: String = order.as_str().chars().take(ID_KEPT).collect();
    let name = format!("{SET_ASIDE}/{id}-{former}");
    fs::create_dir_all(root.join(SET_ASIDE))?;
    fs::rename(&folder, root.join(&name))?;
    fs::create_dir_all(&folder)?;
    Ok(Some(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{NOTE, move_files};

    #[test]
    fn files_of_another_generation_are_moved_and_our_own_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let order = format!("wo-{}", "x".repeat(60)).parse().unwrap();
        let kept =
            |generation, former| move_files(root.path(), &order, generation, former).unwrap();
        assert_eq!(kept(7, None), None);
        let folder = root.path().join(order.as_str());
        fs::write(folder.join("plan"), "seven").unwrap();
        assert_eq!(kept(7, None), None, "files of an older version without a note are kept");
        fs::write(folder.join(NOTE), "7").unwrap();
        assert_eq!(kept(7, None), None);
        let place = kept(8, None).unwrap();
        assert_eq!(fs::read_to_string(root.path().join(&place).join("plan")).unwrap(), "seven");
        assert!(place.rsplit('/').next().unwrap().parse::<crate::domain::WorkOrderId>().is_ok());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(kept(9, Some(8)).is_some(), "the sandbox tells where no note does");
    }
}
