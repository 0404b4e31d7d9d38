// The page: who is signed in, and the view that the address names.

import { type ComponentType, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { change, get, type Session, type SignedIn, signedOut } from "./api";
import { Explore } from "./explore";
import { go, useAddress } from "./hooks";
import { Live } from "./live";
import { Manage } from "./manage";
import { Overview } from "./overview";
import { Problem } from "./parts";
import { SignIn } from "./sign_in";
import "./style.css";

export interface ViewProps {
  address: URL;
  signedIn: SignedIn;
}

const VIEWS: Readonly<Record<string, { label: string; view: ComponentType<ViewProps> }>> = {
  "/": { label: "Overview", view: Overview },
  "/explore": { label: "Explore", view: Explore },
  "/live": { label: "Live", view: Live },
  "/manage": { label: "Manage", view: Manage },
};

function Page() {
  const address = useAddress();
  const [session, setSession] = useState<Session>();
  const [error, setError] = useState<Error>();
  const shown = useRef(address.pathname);

  const begin = () => {
    setError(undefined);
    get<Session>("/session").then(setSession, setError);
  };
  useEffect(begin, []);
  // Somebody may have signed in with another key meanwhile, in another tab.
  useEffect(() => {
    const look = () => {
      if (!document.hidden) get<Session>("/session").then(setSession, () => {});
    };
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  useEffect(() => {
    const end = () => setSession({ key: null, ended: true });
    signedOut.addEventListener("ended", end);
    return () => signedOut.removeEventListener("ended", end);
  }, []);

  const { label, view: View } = VIEWS[address.pathname] ?? { label: "Overview", view: Overview };
  const isSignedIn = Boolean(session?.key);
  useEffect(() => {
    document.title = isSignedIn ? `${label} · Tallybook` : "Sign in · Tallybook";
    // Who goes on by keyboard or ear begins at the top of the view.
    if (shown.current !== address.pathname) {
      document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
      if (!address.hash) scrollTo(0, 0);
    }
    shown.current = address.pathname;
  }, [label, isSignedIn, address.pathname, address.hash]);

  if (error) {
    return (
      <main class="sign-in">
        <h1>Tallybook</h1>
        <Problem error={error} again={begin} />
      </main>
    );
  }
  if (!session) return null;
  if (!session.key) {
    return <SignIn hasEnded={session.ended} onSignedIn={(key) => setSession({ key, ended: false })} />;
  }
  const signOut = () => change<Session>("DELETE", "/session").then(setSession, setError);
  return (
    <>
      <header>
        <a class="name" href="/">
          Tallybook
        </a>
        <nav aria-label="Views">
          {Object.entries(VIEWS).map(([path, { label }]) => (
            <a key={path} href={path} aria-current={address.pathname === path ? "page" : undefined}>
              {label}
            </a>
          ))}
        </nav>
        <div class="who">
          <span title={`Organization ${session.key.organization_id}`}>{session.key.name}</span>
          <button type="button" onClick={signOut}>
            Sign out
          </button>
        </div>
      </header>
      <main>
        <View key={session.key.id} address={address} signedIn={session.key} />
      </main>
    </>
  );
}

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (event.defaultPrevented || link.download || link.origin !== location.origin || !VIEWS[link.pathname]) return;
  event.preventDefault();
  go(link.href);
});

const page = document.getElementById("page");
if (page) render(<Page />, page);
