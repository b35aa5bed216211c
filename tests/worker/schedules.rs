//! Keeps the product's own schedules out of the way of a test.

use sqlx::{ConnectOptions, Connection, PgPool};

/// Deletes the schedules of the product itself: their jobs would come between those of a test that
/// happens to run at their time.
pub fn without_schedules(pool: &PgPool) {
    let options = (*pool.connect_options()).clone();
    let delete = async move {
        let mut connection = options.connect().await.unwrap();
        sqlx::query("delete from awo.schedules").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    };
    // A runtime of its own, on a thread of its own: the caller cannot wait.
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(delete);
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
}
