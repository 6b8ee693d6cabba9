//! Chromium, without a window: what a user sees of a page, and what a real browser does with cookies, redirects and policies.
//!
//! Tests that need it have the path segment `chromium` in their names, so the test command can skip them where it is not installed. It is
//! driven by the DevTools protocol over two pipes, and ends when they close, however the test process ends.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The time limit of one answer or one page.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs Chromium until the pipe on standard input closes, and removes its profile, which is its home. The protocol is spoken on descriptors 3
/// (to the browser) and 4 (from it).
const KEEPER: &str = r#"
chromium "$@" 3<&0 4>&1 0</dev/null 1>&2
rm -rf -- "$HOME"
"#;

/// It has a profile of its own, shows nothing, and reaches only this machine. It has no sandbox, which cannot be had as root or in many
/// containers: it shows the pages of the tests only.
const FLAGS: [&str; 11] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
    "--window-size=800,600",
];

/// A browser with one page, and a profile of its own. It ends when this value is dropped.
pub struct Chromium {
    _keeper: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The session of the page.
    session: Option<String>,
    /// The load of the document that the page shows.
    loader: Value,
    calls: u64,
    events: Vec<Value>,
}

/// The content of a page, as its user has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The address of the page.
    pub url: String,
    pub title: String,
    pub heading: String,
    pub text: String,
}

// === impl Chromium ===

impl Chromium {
    /// Starts a browser with a new profile.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory").keep();
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank").env("HOME", &profile);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().expect("a shell");
        let input = keeper.stdin.take().expect("a pipe");
        let output = BufReader::new(keeper.stdout.take().expect("a pipe"));
        let mut chromium = Chromium {
            _keeper: keeper,
            input,
            output,
            session: None,
            loader: Value::Null,
            calls: 0,
            events: Vec::new(),
        };
        let target = chromium.call("Target.createTarget", json!({ "url": "about:blank" })).await["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = chromium.call("Target.attachToTarget", attach).await["sessionId"].clone();
        chromium.session = session.as_str().map(str::to_owned);
        chromium.call("Page.enable", json!({})).await;
        chromium.call("Page.setLifecycleEventsEnabled", json!({ "enabled": true })).await;
        chromium
    }

    /// Opens an address, as if it were typed or came from another program.
    ///
    /// # Panics
    /// Panics if no page comes.
    pub async fn open(&mut self, url: &str) -> Shown {
        let opened = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(opened.get("errorText").is_none(), "{opened}");
        let loader = opened["loaderId"].clone();
        self.loaded(|other| *other == loader).await
    }

    /// Follows the link with this text, as a click does.
    ///
    /// # Panics
    /// Panics if there is no such link, or no page comes.
    pub async fn follow(&mut self, text: &str) -> Shown {
        let (text, before) = (Value::from(text), self.loader.clone());
        self.events.clear();
        self.evaluate(&format!("[...document.links].find(link => link.textContent === {text}).click()")).await;
        self.loaded(|other| *other != before).await
    }

    /// Fills in the form of the page, and sends it by its first button, as its user does.
    ///
    /// # Panics
    /// Panics if the page has no such form, or no page comes.
    pub async fn submit(&mut self, fields: &[(&str, &str)]) -> Shown {
        let before = self.loader.clone();
        self.events.clear();
        for (name, value) in fields {
            let (name, value) = (Value::from(*name), Value::from(*value));
            self.evaluate(&format!("document.forms[0].elements[{name}].value = {value}")).await;
        }
        self.evaluate("document.forms[0].querySelector('button').click()").await;
        self.loaded(|other| *other != before).await
    }

    /// The value of an expression in the page.
    ///
    /// # Panics
    /// Panics if it throws.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let run = json!({ "expression": expression, "returnByValue": true, "userGesture": true });
        let mut run = self.call("Runtime.evaluate", run).await;
        assert!(run.get("exceptionDetails").is_none(), "{run}");
        run["result"]["value"].take()
    }

    /// The cookies that the browser would send to an address.
    pub async fn cookies(&mut self, url: &str) -> Vec<Value> {
        let mut kept = self.call("Network.getCookies", json!({ "urls": [url] })).await;
        serde_json::from_value(kept["cookies"].take()).expect("a list")
    }

    /// The role and the name of what a screen reader finds in the page.
    pub async fn read(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().expect("a list").iter().filter(|node| node["ignored"] != true);
        let text = |node: &Value, part: &str| node[part]["value"].as_str().unwrap_or_default().to_owned();
        nodes.map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    /// Shows the page in a window of this width, on a dark screen or a light one.
    pub async fn resize(&mut self, width: u32, dark: bool) {
        let size = json!({ "width": width, "height": 600, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [scheme] })).await;
    }

    /// A picture of the page, as a PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let taken = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        STANDARD.decode(taken["data"].as_str().expect("a text")).expect("Base64")
    }

    /// Waits until the document of a load has come.
    async fn loaded(&mut self, is_awaited: impl Fn(&Value) -> bool) -> Shown {
        let is_loaded = |event: &Value| {
            let is_load = event["method"] == "Page.lifecycleEvent" && event["params"]["name"] == "load";
            is_load && is_awaited(&event["params"]["loaderId"])
        };
        self.loader = loop {
            if let Some(event) = self.events.iter().find(|event| is_loaded(event)) {
                break event["params"]["loaderId"].clone();
            }
            let event = self.receive().await;
            self.events.push(event);
        };
        self.events.clear();
        let mut texts = self
            .evaluate(
                "[location.href, document.title, document.querySelector('h1')?.innerText ?? '', document.body.innerText]",
            )
            .await;
        let mut text = |index: usize| texts[index].take().as_str().unwrap_or_default().to_owned();
        Shown { url: text(0), title: text(1), heading: text(2), text: text(3) }
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = session.clone().into();
        }
        let mut message = call.to_string().into_bytes();
        message.push(0);
        self.input.write_all(&message).await.expect("the browser listens");
        loop {
            let mut message = self.receive().await;
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// The next message of the browser.
    async fn receive(&mut self) -> Value {
        let mut message = Vec::new();
        let read = self.output.read_until(0, &mut message);
        tokio::time::timeout(PATIENCE, read).await.expect("the browser answers").expect("a pipe");
        assert_eq!(message.pop(), Some(0), "Chromium has ended: is the Debian package chromium installed?");
        serde_json::from_slice(&message).expect("JSON")
    }
}
