//! The previous program as the database knows it: its recorded statements, sent with the values it sends.

use std::{
    fs,
    path::{Path, PathBuf},
};

use archon_awo::domain::JobState;
use serde_json::json;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgPool, Postgres, Row, SqlSafeStr, postgres::PgArguments,
    query::Query,
};
use uuid::Uuid;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade/previous");

/// The schema version it was made for.
pub fn version() -> i64 {
    fs::read_to_string(Path::new(RECORDED).join("version")).unwrap().trim().parse().unwrap()
}

fn statement(name: &str) -> String {
    let path = Path::new(RECORDED).join("sql").join(name).with_extension("sql");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Its statements that this schema does not accept.
pub async fn refused(pool: &PgPool) -> Vec<String> {
    let all = files(&Path::new(RECORDED).join("sql"));
    assert!(all.len() > 40, "only {} statements were recorded", all.len());
    let mut refused = Vec::new();
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let mut connection = pool.acquire().await.unwrap();
        if let Err(error) = connection.prepare(AssertSqlSafe(text).into_sql_str()).await {
            refused.push(format!("{}: {error}", path.display()));
        }
        connection.ping().await.unwrap();
    }
    refused
}

/// A job it holds.
#[derive(Debug, Clone)]
pub struct Held {
    pub job_id: i64,
    pub epoch: i64,
    pub order: String,
}

/// A worker of it.
pub struct Previous {
    pool: PgPool,
    worker_id: Uuid,
}

impl Previous {
    pub async fn start(pool: &PgPool) -> Self {
        // One connection: what it prepared stays prepared while the schema changes.
        let options = (*pool.connect_options()).clone();
        let own = sqlx::postgres::PgPoolOptions::new().max_connections(1);
        let old =
            Self { pool: own.connect_with(options).await.unwrap(), worker_id: Uuid::new_v4() };
        let queues = vec!["default".to_owned()];
        Self::query("queue/register_worker")
            .bind(old.worker_id)
            .bind("old-host")
            .bind(4711)
            .bind("0.0.1")
            .bind(queues)
            .bind(5)
            .execute(&old.pool)
            .await
            .unwrap();
        old
    }

    fn query(name: &str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(statement(name)))
    }

    pub async fn enqueue(&self, url: &str, request: &str) -> String {
        let row = Self::query("orders/enqueue")
            .bind(url.to_owned())
            .bind(request.to_owned())
            .bind(None::<Vec<String>>)
            .bind(None::<String>)
            .bind(0)
            .bind(None::<chrono::DateTime<chrono::Utc>>)
            .bind(0.0)
            .bind(None::<String>)
            .bind(None::<String>)
            .bind(None::<String>)
            .fetch_one(&self.pool)
            .await;
        row.unwrap().get(0)
    }

    pub async fn claim(&self, limit: i64) -> Vec<Held> {
        let rows = Self::query("queue/claim")
            .bind(self.worker_id)
            .bind(vec!["default".to_owned()])
            .bind(limit)
            .bind(30.0)
            .bind(900.0)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let jobs = rows.iter().filter(|row| row.get::<Option<i64>, _>("job_id").is_some());
        let held = |row: &sqlx::postgres::PgRow| {
            // The columns that a claim is read from.
            let _: (String, i32, i32, i32, serde_json::Value, Option<String>, String, f64) = (
                row.get("kind"),
                row.get("attempt"),
                row.get("max_attempts"),
                row.get("crash_count"),
                row.get("payload"),
                row.get("traceparent"),
                row.get("queue"),
                row.get("waited_seconds"),
            );
            Held {
                job_id: row.get("job_id"),
                epoch: row.get("epoch"),
                order: row.get("work_order_id"),
            }
        };
        jobs.map(held).collect()
    }

    /// How many leases were renewed.
    pub async fn heartbeat(&self, held: &[Held]) -> usize {
        let rows = Self::query("queue/heartbeat")
            .bind(self.worker_id)
            .bind(held.iter().map(|job| job.job_id).collect::<Vec<_>>())
            .bind(held.iter().map(|job| job.epoch).collect::<Vec<_>>())
            .bind(held.iter().map(|_| "execute").collect::<Vec<_>>())
            .bind(held.iter().map(|_| 1.5).collect::<Vec<f64>>())
            .bind(30.0)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter().filter(|row| row.get::<Option<i64>, _>("job_id").is_some()).count()
    }

    /// The number of the run, or nothing when the epoch is stale.
    pub async fn start_step(&self, job: &Held, step: &str, number: i32) -> Option<i32> {
        let row = Self::query("run/start_step")
            .bind(job.job_id)
            .bind(job.epoch)
            .bind(job.order.clone())
            .bind(step.to_owned())
            .bind(number)
            .bind("command")
            .bind(Uuid::new_v4())
            .fetch_optional(&self.pool)
            .await;
        row.unwrap().map(|row| row.get("runs"))
    }

    /// Every other write of a run, each of which must find its row.
    pub async fn write_everything(&self, job: &Held) {
        let (id, epoch, order) = (job.job_id, job.epoch, job.order.clone());
        let branch = format!("feat/{order}");
        let written = |name: &str| Self::query(name).bind(id).bind(epoch);
        let facts = written("run/update_order")
            .bind(order.clone())
            .bind(branch.clone())
            .bind("sandbox")
            .bind(None::<String>)
            .bind(1)
            .bind(2);
        let intent = written("run/intend").bind("push").bind(branch.clone()).bind(json!({"a": 1}));
        let result = written("run/complete_effect").bind("push").bind(branch).bind(json!({}));
        let artifact = written("run/add_artifact")
            .bind(order.clone())
            .bind("plan")
            .bind("planning")
            .bind("text")
            .bind(None::<String>)
            .bind("0".repeat(64))
            .bind(4_i64);
        let stages = written("run/note_stages").bind(false).bind(true).bind(false);
        for (name, query) in [
            ("update_order", facts),
            ("intend", intent),
            ("complete_effect", result),
            ("add_artifact", artifact),
            ("note_stages", stages),
        ] {
            assert_eq!(query.execute(&self.pool).await.unwrap().rows_affected(), 1, "{name}");
        }
        let log = written("run/append_log")
            .bind(order.clone())
            .bind(vec![Some("create-branch")])
            .bind(vec![Some(Uuid::new_v4())])
            .bind(vec!["stdout"])
            .bind(vec![Some(0_i64)])
            .bind(vec![1])
            .bind(vec![b"a line\n".to_vec()]);
        let owned: bool = log.fetch_one(&self.pool).await.unwrap().get(0);
        assert!(owned, "append_log");
        let mut end = written("run/end_step")
            .bind(order)
            .bind("create-branch")
            .bind(1)
            .bind("command")
            .bind(true)
            .bind(json!({"done": true}))
            .bind("done")
            .bind(None::<String>)
            .bind(None::<String>)
            .bind(1_i64)
            .bind(2_i64)
            .bind(3_i64)
            .bind(4_i64)
            .bind(0.5)
            .bind(None::<Uuid>);
        if statement("run/end_step").contains("$18") {
            end = end.bind(None::<String>);
        }
        assert!(end.fetch_optional(&self.pool).await.unwrap().is_some(), "end_step");
    }

    /// The state it left the job in, or nothing when the epoch is stale.
    pub async fn settle(&self, job: &Held, outcome: &str) -> Option<JobState> {
        let row = Self::query("queue/settle")
            .bind(vec![job.job_id])
            .bind(vec![job.epoch])
            .bind(vec![outcome.to_owned()])
            .bind(vec![None::<String>])
            .bind(vec![None::<String>])
            .bind(vec![0.0])
            .fetch_optional(&self.pool)
            .await;
        row.unwrap().map(|row| row.get("state"))
    }

    /// The jobs it took back from dead workers.
    pub async fn rescue(&self) -> Vec<i64> {
        let seen = Self::query("queue/expired").fetch_all(&self.pool).await.unwrap();
        let beat = |row: &sqlx::postgres::PgRow| -> chrono::DateTime<chrono::Utc> {
            row.get("heartbeat_at")
        };
        let rows = Self::query("queue/rescue")
            .bind(0.0)
            .bind(0.0)
            .bind(seen.iter().map(|row| row.get("job_id")).collect::<Vec<i64>>())
            .bind(seen.iter().map(|row| row.get("epoch")).collect::<Vec<i64>>())
            .bind(seen.iter().map(beat).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter().map(|row| row.get("job_id")).collect()
    }

    /// The status of an order as its `show` reads it.
    pub async fn status(&self, order: &str) -> String {
        let row = Self::query("orders/find").bind(order.to_owned()).fetch_one(&self.pool).await;
        row.unwrap().get("status")
    }
}
