// Signing in: the key goes to the server once and is kept nowhere here.

import { useState } from "preact/hooks";
import { change, type Session, type SignedIn } from "./api";
import { Problem } from "./parts";

export function SignIn({ hasEnded, onSignedIn }: { hasEnded: boolean; onSignedIn: (key: SignedIn) => void }) {
  const [key, setKey] = useState("");
  const [error, setError] = useState<Error>();
  const [isAsking, setIsAsking] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setIsAsking(true);
    setError(undefined);
    try {
      const session = await change<Session>("POST", "/session", JSON.stringify({ key }));
      if (session.key) onSignedIn(session.key);
    } catch (refused) {
      setError(refused as Error);
    } finally {
      setIsAsking(false);
    }
  };
  return (
    <main class="sign-in">
      <h1>Tallybook</h1>
      {hasEnded && !error && <p role="status">Your session has ended. Sign in again to go on where you were.</p>}
      <form onSubmit={submit}>
        <label class="field">
          <span>Admin key</span>
          <input
            type="password"
            name="key"
            autocomplete="current-password"
            spellcheck={false}
            placeholder="sk-admin-…"
            required
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
        </label>
        {error && <Problem error={error} />}
        <button type="submit" class="main" disabled={isAsking}>
          Sign in
        </button>
      </form>
      <p class="quiet">
        The server printed a key when it first started. More are made with <code>tallybook keys create</code>; one that
        may read is enough to look.
      </p>
    </main>
  );
}
