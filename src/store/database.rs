//! How statements reach Postgres: as they are, or so that a pooler in transaction mode may stand in
//! between.
//!
//! Such a pooler gives a client another server connection for every transaction. sqlx sends a
//! statement in two parts, each a transaction of its own: the second could meet a connection that
//! never saw the first, or worse, one where another client has just prepared something else. So
//! there every statement has a transaction around it, and no name that would stay behind.
//!
//! Every statement has a limit on the server, and one here for when the server cannot be heard.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    ConnectOptions, Connection, Describe, Either, Error, Execute, Executor, PgConnection, PgPool,
    Postgres, SqlStr,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::timeout;

use super::{
    DatabaseMode,
    room::{Lent, Room},
    words::is_shortage,
};
use crate::sql;

/// SQLSTATE of a prepared statement that is not there.
const NO_SUCH_STATEMENT: &str = "26000";

/// The server has forgotten a closed connection after this.
const NOTICED: Duration = Duration::from_millis(50);

type Answer = Either<PgQueryResult, PgRow>;

/// How long statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// Longest wait here, for a connection and the answer. Longer than the server's own limit, which
    /// is in `transaction`: only a connection that is dead gets so far.
    answer: Duration,
    /// Begins a transaction with the server's limit.
    transaction: &'static str,
}

/// Of every statement: 30 s on the server, and 10 s for a connection of the pool.
const ORDINARY: Limits = Limits {
    answer: Duration::from_secs(45),
    transaction: concat!("BEGIN;", sql!("connect/limit_transaction")),
};
/// Of what may take long: 5 minutes on the server.
const LONG: Limits = Limits {
    answer: Duration::from_secs(5 * 60 + 15),
    transaction: concat!("BEGIN;", sql!("connect/limit_long_transaction")),
};

/// The pool, and how to speak through it. Statements are run on a reference to it, as on a pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    mode: DatabaseMode,
    room: Arc<Room>,
    limits: Limits,
}

impl From<PgPool> for Database {
    /// A pool that reaches the server directly.
    fn from(pool: PgPool) -> Self {
        Self::new(pool, DatabaseMode::Direct)
    }
}

impl From<&PgPool> for Database {
    /// The same for another handle of it.
    fn from(pool: &PgPool) -> Self {
        pool.clone().into()
    }
}

impl From<&Self> for Database {
    /// Another handle of the same pool.
    fn from(database: &Self) -> Self {
        database.clone()
    }
}

impl Database {
    /// A pool whose connections were made for `mode`.
    pub fn new(pool: PgPool, mode: DatabaseMode) -> Self {
        let room = Room::new(pool.clone());
        Self { pool, mode, room, limits: ORDINARY }
    }

    /// The same for statements that may take long, each in a transaction of its own.
    #[must_use]
    pub fn at_length(&self) -> Self {
        Self { limits: LONG, ..self.clone() }
    }

    /// The same with another limit for the answer.
    #[must_use]
    pub fn answering_within(&self, answer: Duration) -> Self {
        Self { limits: Limits { answer, ..self.limits }, ..self.clone() }
    }

    /// The pool itself, for what is not a single statement. Not for statements.
    pub fn connections(&self) -> &PgPool {
        &self.pool
    }

    /// How the server is reached.
    pub fn mode(&self) -> DatabaseMode {
        self.mode
    }

    /// Why a connection was not to be had in time, in the server's words where it answers.
    pub async fn why_late(&self) -> Error {
        self.room.late().await
    }

    /// A connection for one statement or one transaction.
    async fn lend(&self) -> Result<Lent, Error> {
        self.room.lend().await
    }
}

/// How one more connection is made.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where to, and how.
    pub options: PgConnectOptions,
    /// What stands in between.
    pub mode: DatabaseMode,
    /// Gives a connection up when the server has none left for this one.
    pub spare: Option<Database>,
}

impl From<PgConnectOptions> for Dial {
    /// Straight to the server.
    fn from(options: PgConnectOptions) -> Self {
        Self { options, mode: DatabaseMode::Direct, spare: None }
    }
}

impl Dial {
    /// Opens a connection, in the place of one of the pool where the server has no other.
    pub async fn connect(&self) -> Result<Line, Error> {
        let mut connection = match (self.options.connect().await, &self.spare) {
            (Err(error), Some(pool)) if is_shortage(&error) => {
                if pool.room.give_one_up().await {
                    self.follow().await?
                } else {
                    return Err(error);
                }
            }
            (done, _) => done?,
        };
        if self.mode == DatabaseMode::Direct {
            connection.execute(sqlx::raw_sql(sql!("connect/limit_session"))).await?;
        }
        if let Some(pool) = &self.spare {
            pool.room.has_enough();
        }
        Ok(Line { connection: Connected::Alone(connection), mode: self.mode })
    }

    /// The next idle connection of the spare ones, for a statement or two; `None` without spare ones.
    pub async fn borrow(&self) -> Option<Line> {
        let connection = self.spare.as_ref()?.room.next_idle().await;
        Some(Line { connection: Connected::Borrowed(connection), mode: self.mode })
    }

    /// Opens a connection after one was closed, which the server takes a moment to notice.
    async fn follow(&self) -> Result<PgConnection, Error> {
        for _ in 0..5 {
            match self.options.connect().await {
                Err(error) if is_shortage(&error) => tokio::time::sleep(NOTICED).await,
                done => return done,
            }
        }
        self.options.connect().await
    }
}

#[derive(Debug)]
enum Connected {
    Alone(PgConnection),
    Borrowed(PoolConnection<Postgres>),
}

impl Deref for Connected {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Self::Alone(connection) => connection,
            Self::Borrowed(connection) => connection,
        }
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Self::Alone(connection) => connection,
            Self::Borrowed(connection) => connection,
        }
    }
}

/// A connection for one user alone. Statements are run on a mutable reference to it.
#[derive(Debug)]
pub struct Line {
    connection: Connected,
    mode: DatabaseMode,
}

/// A statement that is prepared without a name, here and now: what was prepared on another
/// connection means nothing.
#[derive(Clone)]
struct Nameless {
    sql: SqlStr,
    arguments: Option<PgArguments>,
}

impl Nameless {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, Error> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        Ok(Self { sql: query.sql(), arguments })
    }

    /// Runs it as one transaction, which a pooler keeps on one server connection.
    async fn run(
        self,
        connection: &mut PgConnection,
        begin: &'static str,
    ) -> Result<Vec<Answer>, Error> {
        let mut transaction = connection.begin_with(begin).await?;
        let answers = (&mut *transaction).fetch_many(self).try_collect().await?;
        transaction.commit().await?;
        Ok(answers)
    }
}

impl Execute<'_, Postgres> for Nameless {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        None
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        false
    }
}

/// Runs one statement alone. When its answer has a type of the schema's own that this connection has
/// not met, sqlx looks it up between the two parts, which costs the nameless statement: nothing has
/// happened then, and the second time the type is known.
async fn alone<'q, C, E>(mut connection: C, query: E, limits: Limits) -> Result<Vec<Answer>, Error>
where
    C: DerefMut<Target = PgConnection>,
    E: 'q + Execute<'q, Postgres>,
{
    let query = Nameless::of(query)?;
    match query.clone().run(&mut connection, limits.transaction).await {
        Err(Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_STATEMENT) => {
            query.run(&mut connection, limits.transaction).await
        }
        done => done,
    }
}

/// A connection of the pool during one statement. Left in the middle of it, the connection is closed:
/// the pool would wait for the answer before it used it again, on a dead connection for ever.
struct Asked {
    lent: Lent,
    answered: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.answered {
            self.lent.close_on_drop();
        }
    }
}

impl Database {
    /// Runs one statement on a connection of the pool, within the limit for an answer.
    async fn ask<T>(
        &self,
        statement: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = async {
            let mut asked = Asked { lent: self.lend().await?, answered: false };
            let answer = statement(&mut asked.lent).await;
            asked.answered = true;
            answer
        };
        let Limits { answer: limit, .. } = self.limits;
        timeout(limit, answer).await.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    /// Whether statements go to the server as they are.
    fn is_plain(&self) -> bool {
        self.mode == DatabaseMode::Direct && self.limits.transaction == ORDINARY.transaction
    }
}

/// The error of a statement that was waited for in vain.
fn no_answer(limit: Duration) -> Error {
    let words = format!("no answer for {} s: the connection is dead", limit.as_secs());
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, words))
}

fn rows<'e>(
    answers: impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'e,
) -> BoxStream<'e, Result<Answer, Error>> {
    let each = |answers: Vec<Answer>| stream::iter(answers.into_iter().map(Ok));
    stream::once(answers).map_ok(each).try_flatten().boxed()
}

fn first_row(answers: Vec<Answer>) -> Option<PgRow> {
    answers.into_iter().find_map(Either::right)
}

impl<'c> Executor<'c> for &'c Database {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Answer, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let limits = self.limits;
        if self.is_plain() {
            rows(self.ask(async move |connection: &mut PgConnection| {
                connection.fetch_many(query).try_collect().await
            }))
        } else {
            rows(self.ask(async move |connection: &mut PgConnection| {
                alone(connection, query, limits).await
            }))
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let limits = self.limits;
        if self.is_plain() {
            Box::pin(self.ask(async move |connection: &mut PgConnection| {
                connection.fetch_optional(query).await
            }))
        } else {
            Box::pin(self.ask(async move |connection: &mut PgConnection| {
                alone(connection, query, limits).await.map(first_row)
            }))
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.pool.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.pool.describe(sql)
    }
}

impl<'c> Executor<'c> for &'c mut Line {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Answer, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.mode {
            DatabaseMode::Direct => self.connection.fetch_many(query),
            DatabaseMode::Pooler => rows(alone(&mut *self.connection, query, ORDINARY)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.mode {
            DatabaseMode::Direct => self.connection.fetch_optional(query),
            DatabaseMode::Pooler => Box::pin(async move {
                Ok(first_row(alone(&mut *self.connection, query, ORDINARY).await?))
            }),
        }
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        self.connection.describe(sql)
    }
}
