// The page for signing in. It shows text as text only, and keeps nothing but what
// a person came with (an invitation, the code of a program) until they are back
// from their provider.

const $ = (id) => document.getElementById(id);
const show = (id, visible) => { $(id).hidden = !visible; };
const say = (text) => { $("message").textContent = text; };

const failures = {
  unauthenticated: "That did not sign you in. Try again from the beginning.",
  forbidden: "You are signed in at your provider, but nobody invited that account here. Ask an admin of your organisation to invite your address.",
  unavailable: "The provider does not answer. Try again later.",
  rate_limited: "Too many tries. Try again in a minute.",
};

class Refusal extends Error {
  constructor(problem, status) {
    super(problem.detail || problem.title || "The server refused.");
    this.status = status;
  }
}

async function request(method, path, body) {
  const response = await fetch(path, {
    method,
    credentials: "same-origin",
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await response.text();
  const value = text === "" ? {} : JSON.parse(text);
  if (!response.ok) throw new Refusal(value, response.status);
  return value;
}

const post = (path, body = {}) => request("POST", "/sign-in" + path, body);
const api = (method, path) => request(method, "/api/v1" + path);

// What a person came with stands behind the '#', or waits from before they went to
// their provider. It leaves the address bar at once.
function cameWith() {
  const from = new URLSearchParams(location.hash.slice(1));
  const came = { invitation: "", login: "", error: from.get("error") || "", byLink: from.has("invitation") };
  for (const name of ["invitation", "login"]) {
    came[name] = from.get(name) || sessionStorage.getItem(name) || "";
    if (came[name] !== "") sessionStorage.setItem(name, came[name]);
  }
  history.replaceState(null, "", location.pathname);
  return came;
}

function forget(name) {
  came[name] = "";
  sessionStorage.removeItem(name);
}

const came = cameWith();

// attempt runs what a button does, and says what went wrong.
async function attempt(button, work) {
  button.disabled = true;
  say("");
  try {
    await work();
  } catch (error) {
    say(error.name === "NotAllowedError" ? "Nothing was signed: you cancelled, or it took too long." : error.message);
  } finally {
    button.disabled = false;
  }
}

const on = (id, work) => $(id).addEventListener("click", () => attempt($(id), work));

async function createPasskey(who, name) {
  const options = await post("/passkey/new", who);
  const made = await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options.publicKey) });
  await post("/passkey/new/finish", { ...who, passkey: name, credential: made.toJSON() });
}

function item(list, text, label, work) {
  const li = document.createElement("li");
  li.append(text);
  if (label) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => attempt(button, async () => { await work(); await refresh(); }));
    li.append(button);
  }
  list.append(li);
}

const date = (text) => (text ? new Date(text).toLocaleString() : "never");

// showOffer says what the invitation is with which somebody came. Nothing joins by
// itself: a link can be anybody's. One that was taken on the way here, by signing
// in, is no news.
async function showOffer(part, text) {
  show(part, false);
  if (came.invitation === "") return;
  try {
    const o = await post("/invitation", { invitation: came.invitation });
    $(text).textContent = `${o.name}${o.operator ? " (who runs this server)" : ""}: you would be ${o.role} there. Invited by ${o.invitedBy}${o.email ? ", for " + o.email : ""}.`;
    show(part, true);
  } catch (error) {
    if (error.status !== 403) throw error;
    forget("invitation");
    if (came.byLink) say(error.message);
  }
}

async function showSignedOut() {
  const methods = await request("GET", "/sign-in/methods");
  $("provider").textContent = "Sign in with " + methods.provider;
  show("provider", methods.provider !== "");
  await showOffer("invited", "invited-to");
}

async function showSignedIn(me) {
  $("who").textContent = me.person.name || me.person.id;
  $("address").textContent = (me.person.email || "") + (me.person.email && !me.person.emailVerified ? " (not verified)" : "");
  const memberships = $("memberships"), passkeys = $("passkeys"), sessions = $("sessions");
  memberships.replaceChildren();
  for (const m of me.memberships) item(memberships, `${m.name}: ${m.role}${m.operator ? " (runs this server)" : ""}`, "leave", () => leave(m));
  passkeys.replaceChildren();
  for (const p of (await api("GET", "/me/passkeys")).items) {
    item(passkeys, `${p.name}, last used: ${date(p.lastUsedAt)}`, "remove", () => api("DELETE", "/me/passkeys/" + p.id));
  }
  sessions.replaceChildren();
  for (const s of (await api("GET", "/me/sessions")).items) {
    item(sessions, `${s.name}, until ${date(s.expiresAt)}${s.current ? " (here)" : ""}`, s.current ? "" : "end", () => api("DELETE", "/me/sessions/" + s.id));
  }
  await showOffer("accept", "accept-what");
  await showProgram();
}

async function leave(m) {
  if (!confirm(`Leave ${m.name}? The API keys that you made for it are revoked for ever.`)) return;
  await api("DELETE", "/me/organisations/" + m.organisation);
}

async function showProgram() {
  show("program", false);
  if (came.login === "") return;
  try {
    const program = await post("/program", { code: came.login });
    $("program-name").textContent = program.name;
    $("program-code").textContent = came.login.toUpperCase();
    show("program", true);
  } catch (error) {
    forget("login");
    say(error.message);
  }
}

async function refresh() {
  let me = null;
  try {
    me = await api("GET", "/me");
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  const signedIn = me !== null && me.person !== undefined;
  show("signed-in", signedIn);
  show("signed-out", !signedIn);
  await (signedIn ? showSignedIn(me) : showSignedOut());
}

on("provider", async () => {
  const { url } = await post("/provider", { invitation: came.invitation });
  location.assign(url);
});

on("passkey", async () => {
  const options = await post("/passkey");
  const answer = await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options.publicKey) });
  await post("/passkey/finish", { credential: answer.toJSON() });
  await refresh();
});

on("join-passkey", async () => {
  await createPasskey({ invitation: came.invitation, name: $("name").value.trim() }, "first passkey");
  forget("invitation");
  await refresh();
});

on("add-passkey", async () => {
  await createPasskey({}, $("passkey-name").value.trim());
  await refresh();
});

on("accept-invitation", async () => {
  await request("POST", "/api/v1/me/invitations", { token: came.invitation });
  forget("invitation");
  await refresh();
});

on("decline-invitation", async () => {
  forget("invitation");
  show("accept", false);
});

on("agree", async () => {
  await post("/program/agree", { code: came.login });
  forget("login");
  show("program", false);
  say("Done: the program goes on. You can close this page.");
});

on("disagree", async () => {
  forget("login");
  show("program", false);
});

on("sign-out", async () => {
  await post("/out");
  await refresh();
});

try {
  await refresh();
  if (came.error !== "") say(failures[came.error] || "That did not sign you in. Try again.");
} catch (error) {
  say(error.message);
}
