// The pages of Watchword that speak to security keys. Nothing here decides
// anything: what a key answers goes to the server as it is.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);

  // Binary values travel in base64url without padding (WebAuthn Level 3, section 3).
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => {
    let s = "";
    for (const b of new Uint8Array(buffer)) s += String.fromCharCode(b);
    return btoa(s).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const described = (list) => (list || []).map((c) => ({ ...c, id: bytes(c.id) }));

  // What went wrong, in a form that can be shown.
  class Problem extends Error {
    constructor(title, words) {
      super(words);
      this.title = title;
    }
  }

  const ask = async (path, body) => {
    let answer, said;
    try {
      answer = await fetch(path, {
        method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
        credentials: "omit", cache: "no-store", redirect: "error",
      });
      said = await answer.json();
    } catch {
      throw new Problem("The server does not answer", "See that you are connected, then try again.");
    }
    if (!answer.ok) throw new Problem(said.title || "That did not work", said.text || "Try again.");
    return said;
  };

  const create = async (options) => {
    const o = options.publicKey;
    const made = await navigator.credentials.create({ publicKey: {
      ...o, challenge: bytes(o.challenge), user: { ...o.user, id: bytes(o.user.id) }, excludeCredentials: described(o.excludeCredentials),
    } });
    const r = made.response;
    return {
      ...common(made),
      response: {
        clientDataJSON: text(r.clientDataJSON), attestationObject: text(r.attestationObject),
        transports: r.getTransports ? r.getTransports() : [],
      },
    };
  };

  const get = async (options) => {
    const o = options.publicKey;
    const found = await navigator.credentials.get({ publicKey: {
      ...o, challenge: bytes(o.challenge), allowCredentials: described(o.allowCredentials),
    } });
    const r = found.response;
    const response = { clientDataJSON: text(r.clientDataJSON), authenticatorData: text(r.authenticatorData), signature: text(r.signature) };
    if (r.userHandle && r.userHandle.byteLength > 0) response.userHandle = text(r.userHandle);
    return { ...common(found), response };
  };

  const common = (credential) => {
    const c = { id: credential.id, rawId: text(credential.rawId), type: credential.type, clientExtensionResults: credential.getClientExtensionResults() };
    if (credential.authenticatorAttachment) c.authenticatorAttachment = credential.authenticatorAttachment;
    return c;
  };

  // What browsers say when a key was not used (WebAuthn Level 3, sections 5.1.3 and 5.1.4).
  const words = {
    NotAllowedError: "No key was used: it was called off, or took too long.",
    InvalidStateError: "This key is enrolled for you already. Use another one.",
    NotSupportedError: "Your key, or your browser, cannot do what is needed.",
    ConstraintError: "Your key cannot do what is needed: it has no PIN or fingerprint, or no room for a passkey.",
    SecurityError: "Keys cannot be used at the address of this page.",
    AbortError: "It was called off.",
  };
  const explain = (e) => e instanceof Problem ? e : new Problem("That did not work", words[e.name] || "Your browser could not use the key.");

  const say = (what) => { at("status").textContent = what; };
  const show = (problem) => {
    const box = at("problem");
    box.replaceChildren();
    if (problem) {
      for (const [name, line] of [["strong", problem.title], ["span", problem.message]]) {
        const p = document.createElement("p");
        const part = document.createElement(name);
        part.textContent = line;
        p.append(part);
        box.append(p);
      }
    }
    box.hidden = !problem;
    if (problem) box.focus();
  };

  // One thing at a time, and a word to the reader at each step.
  const on = (form, act) => {
    if (!form) return;
    if (!window.PublicKeyCredential) {
      form.querySelector("button").disabled = true;
      show(new Problem("Keys cannot be used here", "This browser does not know security keys, or the page did not come by HTTPS."));
      return;
    }
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      show(null);
      try {
        await act();
      } catch (e) {
        say("");
        show(explain(e));
      } finally {
        button.disabled = false;
      }
    });
  };

  const enrol = at("enrol");
  on(enrol, async () => {
    const code = enrol.dataset.code;
    say("Asking the server.");
    const begun = await ask("/console/enrol/begin", { code, passkey: enrol.elements.passkey.checked });
    say("Follow what your browser says, and touch the key when it blinks.");
    const response = await create(begun.options);
    say("Checking the key.");
    const done = await ask("/console/enrol/finish", { code, session: begun.session, response });
    location.replace(done.next);
  });

  const signin = at("signin");
  on(signin, async () => {
    at("outcome").hidden = true;
    say("Asking the server.");
    const begun = await ask("/console/signin/begin", { user: signin.elements.user.value.trim(), realm: signin.dataset.realm });
    say("Follow what your browser says, and touch the key when it blinks.");
    const response = await get(begun.options);
    say("Checking the answer.");
    const got = await ask("/console/signin/finish", { session: begun.session, response });
    say("");
    tell(got);
  });

  const proofs = {
    basic: "its maker's certificate", attca: "a certificate of a certification authority for it", anonca: "an anonymous certificate",
    self: "the key itself only", none: "nothing",
  };

  const tell = (got) => {
    const accepted = got.result === "accept";
    at("outcome-title").textContent = accepted ? "Accepted" : "Rejected";
    const rows = accepted ? [
      ["User", got.user], ["Realm", got.realm], ["Key", got.serial], ["Model", got.model], ["AAGUID", got.aaguid],
      ["Attested by", proofs[got.attestation] || got.attestation],
      ["User verified", got.user_verified ? "yes, by PIN, fingerprint or face" : "no"],
      ["Synced", got.synced ? "it may be on several devices" : "it is on one device only"],
      ["When", new Date(got.time).toLocaleString()],
    ] : [["Result", "An application gets to know no more than this, whatever the reason is. The helpdesk can see it."]];
    const facts = at("facts");
    facts.replaceChildren();
    for (const [name, value] of rows) {
      if (!value) continue;
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = value;
      facts.append(dt, dd);
    }
    const outcome = at("outcome");
    outcome.hidden = false;
    outcome.focus();
  };

  for (const t of document.querySelectorAll("time[datetime]")) {
    t.textContent = new Date(t.dateTime).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
  }
})();
