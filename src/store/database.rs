//! How statements reach Postgres: as they are, or so that a pooler in transaction mode may stand in
//! between.
//!
//! Such a pooler gives a client another server connection for every transaction. sqlx sends a
//! statement in two parts, each a transaction of its own: the second could meet a connection that
//! never saw the first, or worse, one where another client has just prepared something else. So
//! there every statement has a transaction around it, and no name that would stay behind.

use std::{
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

use super::{
    DatabaseMode,
    room::{Lent, Room},
    words::is_shortage,
};

/// SQLSTATE of a prepared statement that is not there.
const NO_SUCH_STATEMENT: &str = "26000";

/// The server has forgotten a closed connection after this.
const NOTICED: Duration = Duration::from_millis(50);

type Answer = Either<PgQueryResult, PgRow>;

/// The pool, and how to speak through it. Statements are run on a reference to it, as on a pool.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    mode: DatabaseMode,
    room: Arc<Room>,
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
        Self { pool, mode, room }
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
        let connection = match (self.options.connect().await, &self.spare) {
            (Err(error), Some(pool)) if is_shortage(&error) => {
                if pool.room.give_one_up().await {
                    self.follow().await?
                } else {
                    return Err(error);
                }
            }
            (done, _) => done?,
        };
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
    async fn run(self, connection: &mut PgConnection) -> Result<Vec<Answer>, Error> {
        let mut transaction = connection.begin().await?;
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
async fn alone<'q, C, E>(mut connection: C, query: E) -> Result<Vec<Answer>, Error>
where
    C: DerefMut<Target = PgConnection>,
    E: 'q + Execute<'q, Postgres>,
{
    let query = Nameless::of(query)?;
    match query.clone().run(&mut connection).await {
        Err(Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_STATEMENT) => {
            query.run(&mut connection).await
        }
        done => done,
    }
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
        match self.mode {
            DatabaseMode::Direct => {
                rows(async move { self.lend().await?.fetch_many(query).try_collect().await })
            }
            DatabaseMode::Pooler => rows(async move { alone(self.lend().await?, query).await }),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.mode {
            DatabaseMode::Direct => {
                Box::pin(async move { self.lend().await?.fetch_optional(query).await })
            }
            DatabaseMode::Pooler => {
                Box::pin(async move { Ok(first_row(alone(self.lend().await?, query).await?)) })
            }
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
            DatabaseMode::Pooler => rows(alone(&mut *self.connection, query)),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        match self.mode {
            DatabaseMode::Direct => self.connection.fetch_optional(query),
            DatabaseMode::Pooler => {
                Box::pin(async move { Ok(first_row(alone(&mut *self.connection, query).await?)) })
            }
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
