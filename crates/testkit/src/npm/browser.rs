//! A browser, as far as the pages of an OAuth server need one: it keeps cookies, follows redirects, and fills in the forms that it is shown.

use std::collections::BTreeMap;

use http::header::{LOCATION, SET_COOKIE};
use url::Url;

use super::http::{Http, Page};

/// A browser with cookies of its own.
#[derive(Default)]
pub struct Browser {
    http: Http,
    /// The values by the path to which they are sent, and the name.
    cookies: BTreeMap<(String, String), String>,
}

/// The decision of the user at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Permit,
    Refuse,
}

/// The place at which a browser ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed {
    /// It was sent to this URL of another site.
    Elsewhere(String),
    /// It shows a page without a form.
    Page(String),
}

/// A form of a page.
struct Form {
    action: String,
    fields: Vec<(String, String)>,
    /// True if it has a button that refuses.
    refuses: bool,
}

/// The name of the button that refuses.
const REFUSAL: &str = "cancel";
/// The redirects and forms after which a server leads nowhere.
const MAX_STEPS: usize = 20;

// === impl Browser ===

impl Browser {
    /// Opens a URL, and does what its pages ask: the user logs in by this name, and decides.
    ///
    /// # Panics
    /// Panics if the server answers with an error, or leads nowhere.
    pub async fn visit(&mut self, url: &str, user: &str, decision: Decision) -> Landed {
        let mut url = Url::parse(url).expect("a URL");
        let origin = url.origin();
        let mut page = self.get(&url).await;
        let mut has_refused = false;
        for _ in 0..MAX_STEPS {
            assert!(page.status < 400 || has_refused, "{url}: {} {}", page.status, page.body);
            if let Some(location) = page.headers.get(LOCATION) {
                url = url.join(location.to_str().expect("a URL")).expect("a URL");
                if url.origin() != origin {
                    return Landed::Elsewhere(url.into());
                }
                page = self.get(&url).await;
                continue;
            }
            // What a user is asked who has refused is to begin again.
            let form = Form::of(&page.body).filter(|_| !has_refused);
            let Some(form) = form else { return Landed::Page(page.body) };
            url = url.join(&form.action).expect("a URL");
            page = match decision {
                Decision::Refuse if url.path().starts_with("/interaction/") => {
                    has_refused = true;
                    url = Url::parse(&format!("{url}/abort")).expect("a URL");
                    self.get(&url).await
                }
                Decision::Refuse if form.refuses => {
                    has_refused = true;
                    self.submit(&url, form.refused(), user).await
                }
                _ => self.submit(&url, form, user).await,
            };
        }
        panic!("{url} leads nowhere");
    }

    async fn get(&mut self, url: &Url) -> Page {
        let cookies = self.cookies_for(url);
        let page = self.http.get(url.as_str(), &[("accept", "text/html"), ("cookie", &cookies)]).await;
        self.kept(page)
    }

    /// Sends a form, with the name of the user where it asks for one.
    async fn submit(&mut self, url: &Url, form: Form, user: &str) -> Page {
        let filled = |(name, value): &(String, String)| match &**name {
            "login" | "username" => (name.clone(), user.to_owned()),
            "password" => (name.clone(), "a password".to_owned()),
            _ => (name.clone(), value.clone()),
        };
        let fields: Vec<(String, String)> = form.fields.iter().map(filled).collect();
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let cookies = self.cookies_for(url);
        let page = self.http.post(url.as_str(), &fields, &[("accept", "text/html"), ("cookie", &cookies)]).await;
        self.kept(page)
    }

    fn cookies_for(&self, url: &Url) -> String {
        let cookies = self.cookies.iter().filter(|((path, _), _)| url.path().starts_with(&**path));
        let cookies: Vec<String> = cookies.map(|((_, name), value)| format!("{name}={value}")).collect();
        cookies.join("; ")
    }

    /// Keeps the cookies of a response.
    fn kept(&mut self, page: Page) -> Page {
        for cookie in page.headers.get_all(SET_COOKIE) {
            let mut parts = cookie.to_str().expect("a cookie").split(';').map(str::trim);
            let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a name and a value");
            let path = parts.find_map(|part| part.strip_prefix("path=").or_else(|| part.strip_prefix("Path=")));
            let key = (path.unwrap_or("/").to_owned(), name.to_owned());
            // An empty one is taken away.
            match value {
                "" => self.cookies.remove(&key),
                value => self.cookies.insert(key, value.to_owned()),
            };
        }
        page
    }
}

// === impl Form ===

impl Form {
    /// The first form of a page.
    fn of(page: &str) -> Option<Self> {
        let form = &page[page.find("<form")?..];
        let form = &form[..form.find("</form>")?];
        let mut tags = form.split('<').skip(1);
        let action = attribute(tags.next()?, "action")?;
        let refuses =
            form.split('<').any(|tag| tag.starts_with("button") && attribute(tag, "name").as_deref() == Some(REFUSAL));
        let inputs = tags.filter(|tag| tag.starts_with("input"));
        let field = |tag| Some((attribute(tag, "name")?, attribute(tag, "value").unwrap_or_default()));
        Some(Form { action, fields: inputs.filter_map(field).collect(), refuses })
    }

    /// The form as the button that refuses sends it.
    fn refused(mut self) -> Self {
        self.fields.push((REFUSAL.to_owned(), String::new()));
        self
    }
}

/// The value of an attribute of a tag.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let begin = format!(" {name}=\"");
    let value = &tag[tag.find(&begin)? + begin.len()..];
    let value = &value[..value.find('"')?];
    let mut text = value.to_owned();
    for (entity, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        text = text.replace(entity, character);
    }
    Some(text)
}
