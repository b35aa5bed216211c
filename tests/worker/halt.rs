//! Makes a worker's own statement wait at an exact point of a step: as it is about to start, or as
//! its effect is done and not yet recorded.

use sqlx::{PgPool, Postgres, pool::PoolConnection};

use crate::harness::Harness;

const LOCK: i64 = 4_242;

/// While it lives, the worker that gets to the point waits there.
pub struct Halt {
    lock: PoolConnection<Postgres>,
}

impl Halt {
    pub async fn at(pool: &PgPool, step: &str, inside: bool) -> Self {
        sqlx::raw_sql(
            "create table halt_point (step text, inside boolean);
             create function wait_at_halt_point() returns trigger language plpgsql as $$ begin
                 if exists (select 1 from halt_point p where p.step = new.step_name
                            and p.inside = (new.finished_at is not null)) then
                     perform pg_advisory_xact_lock(4242);
                 end if;
                 return new;
             end $$;
             create trigger wait_at_halt_point before insert or update on awo.steps
                 for each row execute function wait_at_halt_point()",
        )
        .execute(pool)
        .await
        .unwrap();
        sqlx::query("insert into halt_point values ($1, $2)")
            .bind(step)
            .bind(inside)
            .execute(pool)
            .await
            .unwrap();
        let mut lock = pool.acquire().await.unwrap();
        sqlx::query("select pg_advisory_lock($1)").bind(LOCK).execute(&mut *lock).await.unwrap();
        Self { lock }
    }

    /// Waits until a worker waits here.
    pub async fn until_reached(&self, harness: &Harness) {
        harness
            .until(
                "select exists (select 1 from pg_locks l join pg_database d on d.oid = l.database
                 where d.datname = current_database() and l.locktype = 'advisory' and not l.granted)",
            )
            .await;
    }

    /// Ends the statement that waits: the server does not notice that its client is dead.
    pub async fn end_statement(&self, pool: &PgPool) {
        sqlx::query(
            "select pg_terminate_backend(l.pid) from pg_locks l join pg_database d on d.oid = l.database
             where d.datname = current_database() and l.locktype = 'advisory' and not l.granted",
        )
        .execute(pool)
        .await
        .unwrap();
    }

    /// Lets everybody pass from now on.
    pub async fn lift(mut self, pool: &PgPool) {
        sqlx::query("delete from halt_point").execute(pool).await.unwrap();
        sqlx::query("select pg_advisory_unlock($1)")
            .bind(LOCK)
            .execute(&mut *self.lock)
            .await
            .unwrap();
    }
}
