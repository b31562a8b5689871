//! The MCP server: takes calls on standard input, answers on standard output, and ends with either.
//!
//! What goes wrong with the work of a call is its result, with `isError`. A protocol error is only
//! what is no call of one of the tools.

use std::sync::{Arc, LazyLock};

use anyhow::anyhow;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, JsonObject, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::{RequestContext, ServerInitializeError, serve_server},
};
use tokio::{
    sync::{Semaphore, watch},
    time,
};

use crate::{
    context::Context,
    failure::Failure,
    signals::Signals,
    tools::{Outcome, app_logs, app_status, push_changes},
};

pub(crate) mod keeper;
pub(crate) mod roots;
pub(crate) mod steps;
mod transport;

use roots::Roots;
use steps::{Reporter, Steps};

/// How many calls are worked on at a time.
const CALLS: usize = 64;

/// How long calls in flight have for their answers once a signal or the end of standard output ends
/// the server. The end of standard input gives them 5 s to do their work, too, which is the protocol
/// library's.
const LAST_WORDS: time::Duration = time::Duration::from_secs(3);

const INSTRUCTIONS: &str = "\
Call push_changes after editing files: it brings the running app to what the project's directory \
holds, waits until the new code is ready, and when it is not, brings the old code back and returns \
the app's last output. \
Every argument is optional: name the project's directory as root when it isn't the one that this \
server was started in. \
app_status tells whether the app runs and which push stands, app_logs shows what the app printed, \
and every error says what to do next.";

/// Serves MCP on standard input and output until one of them or a signal ends it.
pub(crate) async fn serve(context: Context) -> Result<(), Failure> {
    let ended = ended(Signals::to_end()?);
    tokio::pin!(ended);
    let roots = Arc::new(Roots::new(context));
    let (transport, hung_up) = transport::stdio();
    let server = Server {
        roots: Arc::clone(&roots),
        calls: Semaphore::new(CALLS),
        hung_up,
    };
    let result = tokio::select! {
        started = serve_server(server, transport) => match started {
            Ok(running) => {
                let cancel = running.cancellation_token();
                let waiting = running.waiting();
                tokio::pin!(waiting);
                tokio::select! {
                    _ = &mut waiting => {}
                    () = &mut ended => {
                        cancel.cancel();
                        // Nobody may be left to take the answers.
                        let _ = time::timeout(LAST_WORDS, waiting).await;
                    }
                }
                Ok(())
            }
            // A client that goes before it began.
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(Failure::failed("protocol", error)),
        },
        () = &mut ended => Ok(()),
    };
    roots.close().await;
    result
}

/// Waits for a signal to end, or until nobody is there to read answers.
async fn ended(mut signals: Signals) {
    tokio::select! {
        _ = signals.next() => {}
        () = transport::unread() => {}
    }
}

#[derive(Debug)]
struct Server {
    roots: Arc<Roots>,
    calls: Semaphore,
    /// Whether standard input has ended.
    hung_up: watch::Receiver<bool>,
}

impl Server {
    /// Does the work of a call. `None` if there is no such tool.
    async fn work(&self, name: &str, arguments: JsonObject, steps: &Steps) -> Option<Outcome> {
        let Ok(_call) = self.calls.try_acquire() else {
            let busy = anyhow!("{CALLS} calls are in flight: wait for one of them");
            return Some(Outcome::from(&Failure::failed("busy", busy)));
        };
        let roots = &*self.roots;
        let outcome = match name {
            push_changes::NAME => push_changes::call(roots, arguments, steps).await,
            app_status::NAME => app_status::call(roots, arguments).await,
            app_logs::NAME => app_logs::call(roots, arguments).await,
            _ => return None,
        };
        Some(outcome.unwrap_or_else(|failure| Outcome::from(&failure)))
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("patchwire", env!("CARGO_PKG_VERSION"))
            .with_title("Patchwire")
            .with_description("Pushes what is edited here to an app that runs elsewhere");
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let steps = Steps::default();
        let reporter = Reporter::new(&context, &self.hung_up);
        let arguments = request.arguments.unwrap_or_default();
        let work = steps::reported(&steps, reporter, async {
            self.work(&request.name, arguments, &steps).await
        });
        let outcome = tokio::select! {
            outcome = work => outcome.ok_or_else(|| {
                ErrorData::invalid_params(format!("there is no tool “{}”", request.name), None)
            })?,
            // A client that cancels reads no answer. One whose server is ended does.
            () = context.ct.cancelled() => Outcome::from(&Failure::failed(
                "interrupted",
                anyhow!(
                    "the call was interrupted: a push that had been sent as a whole goes on, and \
                     app_status tells what became of it"
                ),
            )),
        };
        Ok(outcome.into())
    }
}

/// All tools, whose schemas are made once.
static TOOLS: LazyLock<[Tool; 3]> = LazyLock::new(|| {
    [
        push_changes::definition(),
        app_status::definition(),
        app_logs::definition(),
    ]
});
