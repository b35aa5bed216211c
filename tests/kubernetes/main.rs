//! What no schema of Kubernetes can see in `ops/kubernetes`: that the settings are ours, that the times fit each
//! other, that every container is shut in, and that the query for scaling counts what it should.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path, time::Duration};

use archon_awo::config::keys;
use serde_norway::Value;
use sqlx::{AssertSqlSafe, PgPool};

/// The documents of a file below `ops/kubernetes`.
fn documents(name: &str) -> Vec<Value> {
    use serde::Deserialize;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/kubernetes").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let documents = serde_norway::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).unwrap()).collect()
}

/// The value at a path of keys and numbers.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('/').fold(value, |value, part| match part.parse::<usize>() {
        Ok(number) => &value[number],
        Err(_) => &value[part],
    })
}

fn words(value: &Value) -> Vec<&str> {
    value.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// The literals of the `ConfigMap`, as name and value.
fn literals() -> Vec<(String, String)> {
    let base = documents("base/kustomization.yaml");
    let literals = words(at(&base[0], "configMapGenerator/0/literals"));
    let owned = |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into()));
    literals.into_iter().map(|line| owned(line).unwrap()).collect()
}

#[test]
fn every_variable_is_a_setting_of_the_product() {
    let secret = documents("secret.example.yaml");
    let migrate = documents("components/migrate/job.yaml");
    let mut names: Vec<String> = literals().into_iter().map(|(name, _)| name).collect();
    let secrets = secret[0]["stringData"].as_mapping().unwrap();
    names.extend(secrets.keys().map(|name| name.as_str().unwrap().to_owned()));
    let variable = at(&migrate[0], "spec/template/spec/containers/0/env/0/name");
    names.push(variable.as_str().unwrap().to_owned());
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let known = keys::ALL.iter().any(|key| key.variables.contains(&name.as_str()));
        assert!(known, "{name} is not a setting of archon-awo");
    }
    for (name, value) in secrets {
        let value = value.as_str().unwrap();
        assert!(value.contains("CHANGE-ME"), "{name:?} is not an obvious placeholder");
    }
}

#[test]
fn a_pod_has_time_to_drain() {
    let deployment = documents("base/deployment.yaml");
    let grace = at(&deployment[0], "spec/template/spec/terminationGracePeriodSeconds");
    let (_, drain) = literals().into_iter().find(|(name, _)| name == "AWO_DRAIN_GRACE").unwrap();
    let drain = humantime::parse_duration(&drain).unwrap();
    let grace = Duration::from_secs(grace.as_u64().unwrap());
    // A worker takes up to 18 s more to end its agents and to give their orders back.
    assert!(grace >= drain + Duration::from_secs(20), "{grace:?} for a drain of {drain:?}");
}

#[test]
fn every_container_is_shut_in() {
    for file in ["base/deployment.yaml", "components/migrate/job.yaml"] {
        let pod = &documents(file)[0]["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], Value::from(false), "{file}");
        assert_eq!(at(pod, "securityContext/runAsUser"), &Value::from(10001), "{file}");
        assert_eq!(at(pod, "securityContext/runAsNonRoot"), &Value::from(true), "{file}");
        let profile = at(pod, "securityContext/seccompProfile/type");
        assert_eq!(profile, &Value::from("RuntimeDefault"), "{file}");
        let container = at(pod, "containers/0/securityContext");
        assert_eq!(container["readOnlyRootFilesystem"], Value::from(true), "{file}");
        assert_eq!(container["allowPrivilegeEscalation"], Value::from(false), "{file}");
        assert_eq!(words(at(container, "capabilities/drop")), ["ALL"], "{file}");
        assert!(at(pod, "containers/0/resources/limits/memory").is_string(), "{file}");
    }
}

#[test]
fn the_hardened_component_gives_what_the_hardened_compose_file_gives() {
    let component = documents("components/hardened/kustomization.yaml");
    let patch = at(&component[0], "patches/0/patch").as_str().unwrap();
    let patch: Value = serde_norway::from_str(patch).unwrap();
    let value = |path: &str| {
        let operations = patch.as_sequence().unwrap();
        operations.iter().find(|one| one["path"].as_str() == Some(path)).unwrap()["value"].clone()
    };
    let container = "/spec/template/spec/containers/0";
    let added = value(&format!("{container}/securityContext/capabilities/add"));
    let command = value(&format!("{container}/command"));
    let compose =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose.hardened.yaml"));
    let compose: Value = serde_norway::from_str(&compose.unwrap()).unwrap();
    let service = at(&compose, "services/archon-awo");
    assert_eq!(words(&added), words(&service["cap_add"]));
    // `env` with variables, then the same program and arguments.
    let (command, entrypoint) = (words(&command), words(&service["entrypoint"]));
    let own = command.iter().position(|word| *word == "setpriv").unwrap();
    assert_eq!(command[own..], entrypoint);
    let users = command.iter().find_map(|word| word.strip_prefix("AWO_AGENT_USERS=")).unwrap();
    let given = at(service, "environment/AWO_AGENT_USERS").as_str().unwrap();
    assert_eq!(given, format!("${{AWO_AGENT_USERS:-{users}}}"));
    // What is kept by process 1 is what the container has, and no more.
    for right in words(&added) {
        assert!(entrypoint.iter().any(|word| word.contains(&format!("+{}", right.to_lowercase()))));
    }
}

#[test]
fn the_probes_ask_what_they_are_for() {
    let deployment = documents("base/deployment.yaml");
    let container = at(&deployment[0], "spec/template/spec/containers/0");
    let asked = |probe: &str| at(container, probe)["httpGet"]["path"].as_str().unwrap().to_owned();
    // A database that is away must not end workers whose agents work.
    assert_eq!(asked("livenessProbe"), "/livez");
    assert_eq!(asked("startupProbe"), "/livez");
    assert_eq!(asked("readinessProbe"), "/readyz");
}

#[test]
fn the_scaled_object_has_what_keda_requires() {
    let all = documents("components/keda/scaled-object.yaml");
    let [authentication, scaled] = all.as_slice() else { panic!("{} documents", all.len()) };
    for (document, kind) in [(authentication, "TriggerAuthentication"), (scaled, "ScaledObject")] {
        assert_eq!(document["apiVersion"], Value::from("keda.sh/v1alpha1"));
        assert_eq!(document["kind"], Value::from(kind));
    }
    let reference = at(authentication, "spec/secretTargetRef/0");
    assert_eq!(reference["parameter"], Value::from("connection"));
    assert_eq!(reference["name"], Value::from("archon-awo"));
    assert_eq!(reference["key"], Value::from("DATABASE_URL"));
    assert_eq!(at(scaled, "spec/scaleTargetRef/name"), &Value::from("archon-awo"));
    let count = |name: &str| scaled["spec"][name].as_u64().unwrap();
    assert!(count("minReplicaCount") < count("maxReplicaCount"));
    let trigger = at(scaled, "spec/triggers/0");
    assert_eq!(trigger["type"], Value::from("postgresql"));
    assert_eq!(at(trigger, "authenticationRef/name"), &authentication["metadata"]["name"]);
    // KEDA reads numbers from strings.
    let target: u64 = at(trigger, "metadata/targetQueryValue").as_str().unwrap().parse().unwrap();
    let (_, slots) = literals().into_iter().find(|(name, _)| name == "AWO_MAX_CONCURRENT").unwrap();
    assert!(target > 0 && target <= slots.parse().unwrap(), "{target} of {slots}");
}

#[sqlx::test(migrator = "archon_awo::store::MIGRATOR")]
async fn the_query_for_scaling_counts_what_another_worker_could_do(pool: PgPool) {
    let scaled = documents("components/keda/scaled-object.yaml");
    let query = at(&scaled[1], "spec/triggers/0/metadata/query").as_str().unwrap();
    let depth = async || -> i64 {
        let query = format!("SELECT ({query})::bigint");
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&pool).await.unwrap()
    };
    assert_eq!(depth().await, 0, "the product's own jobs do not count");
    for repository in ["a/one", "a/one", "a/one", "a/two", "a/paused"] {
        sqlx::query("SELECT awo_enqueue($1, 'x')").bind(repository).execute(&pool).await.unwrap();
    }
    sqlx::query("SELECT awo_pause_repository('a/paused')").execute(&pool).await.unwrap();
    assert_eq!(depth().await, 3, "two of the first, which may have two, and one of the second");
    let store = archon_awo::store::Store::new(pool.clone());
    let (queues, lease) = (["default".to_owned()], Duration::from_secs(30));
    let claimed = store.claim(uuid::Uuid::new_v4(), &queues, 2, lease, Duration::ZERO).await;
    assert_eq!(claimed.unwrap().into_jobs().len(), 2);
    assert_eq!(depth().await, 3, "what runs counts as what waits");
}
