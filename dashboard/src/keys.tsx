// Keys: made, shown once, revoked.

import { useState } from "preact/hooks";
import { change, get, type List, type SignedIn } from "./api";
import { useAnswer, useOnce } from "./hooks";
import { Answered, Copy, Problem, Scroll } from "./parts";
import { moment, now } from "./time";

const KEYS = "/v1/organization/admin_api_keys";
const SCOPES = { "api.usage.read": "Read", "api.usage.write": "Write", "api.management": "Manage" } as const;
const LIVES = [
  ["", "Never"],
  ["7", "In 7 days"],
  ["90", "In 90 days"],
  ["365", "In a year"],
] as const;

interface Key {
  id: string;
  name: string;
  redacted_value: string;
  created_at: number;
  last_used_at: number | null;
  expires_at: number | null;
  scopes: (keyof typeof SCOPES)[];
}

/** All of a list, page by page. */
async function all<Item>(path: string, signal: AbortSignal): Promise<Item[]> {
  const found: Item[] = [];
  let after: string | null | undefined;
  do {
    const more: [string, string][] = after ? [["after", after]] : [];
    const page: List<Item> = await get(path, [["limit", "100"], ...more], signal);
    found.push(...page.data);
    after = page.has_more ? page.last_id : null;
  } while (after);
  return found;
}

export function Keys({ signedIn }: { signedIn: SignedIn }) {
  const answer = useAnswer("keys", (signal) => all<Key>(KEYS, signal));
  const [made, setMade] = useState<{ name: string; value: string }>();
  const [error, setError] = useState<Error>();
  const revoke = async (key: Key) => {
    const own = key.id === signedIn.id ? " It is the one you signed in with: your session ends with it." : "";
    if (!confirm(`Revoke the key ${key.name}? Whoever uses it is refused from the next request on.${own}`)) return;
    setError(undefined);
    await change("DELETE", `${KEYS}/${key.id}`).catch(setError);
    answer.again();
  };
  return (
    <section class="panel" aria-label="Keys">
      <h2 id="keys">Keys</h2>
      {made && (
        <div class="note" role="status">
          <p>
            The key <strong>{made.name}</strong>, shown once: <code class="secret">{made.value}</code>
          </p>
          <Copy text={() => made.value}>Copy</Copy>
          <button type="button" onClick={() => setMade(undefined)}>
            Done
          </button>
        </div>
      )}
      <NewKey
        signedIn={signedIn}
        onMade={(key) => {
          setMade(key);
          answer.again();
        }}
      />
      {error && <Problem error={error} />}
      <Answered answer={answer} height="8rem">
        {(keys) => (
          <Scroll label="All keys">
            <table>
              <thead>
                <tr>
                  <th scope="col">Name</th>
                  <th scope="col">Key</th>
                  <th scope="col">May</th>
                  <th scope="col">Last used</th>
                  <th scope="col">Expires</th>
                  <th scope="col">
                    <span class="unseen">Revoke</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {keys.map((key) => (
                  <tr key={key.id}>
                    <th scope="row">
                      <bdi title={key.name}>{key.name}</bdi>
                      {key.id === signedIn.id && <span class="quiet"> (yours)</span>}
                    </th>
                    <td>
                      <code>{key.redacted_value}</code>
                    </td>
                    <td>{key.scopes.map((scope) => SCOPES[scope]).join(", ")}</td>
                    <td>{key.last_used_at ? moment(key.last_used_at) : "Never"}</td>
                    <td>
                      {key.expires_at ? moment(key.expires_at) : "Never"}
                      {key.expires_at && key.expires_at <= now() && " (expired)"}
                    </td>
                    <td class="number">
                      <button type="button" aria-label={`Revoke ${key.name}`} onClick={() => revoke(key)}>
                        Revoke
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
      </Answered>
    </section>
  );
}

function NewKey({ signedIn, onMade }: { signedIn: SignedIn; onMade: (key: { name: string; value: string }) => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>(["api.usage.read"]);
  const [days, setDays] = useState("");
  const [error, setError] = useState<Error>();
  const [isMaking, once] = useOnce();
  const make = (event: Event) => {
    event.preventDefault();
    return once(async () => {
      setError(undefined);
      try {
        const life = days ? { expires_in_seconds: Number(days) * 86_400 } : {};
        onMade(await change("POST", KEYS, JSON.stringify({ name, scopes, ...life })));
        setName("");
      } catch (refused) {
        setError(refused as Error);
      }
    });
  };
  return (
    <form class="form" onSubmit={make}>
      <label class="field">
        <span>Name of a new key</span>
        <input required maxLength={256} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      <fieldset class="checks">
        <legend>May</legend>
        {Object.entries(SCOPES).map(([scope, text]) => (
          <label key={scope}>
            <input
              type="checkbox"
              checked={scopes.includes(scope)}
              disabled={!signedIn.scopes.includes(scope)}
              onChange={(event) =>
                setScopes(event.currentTarget.checked ? [...scopes, scope] : scopes.filter((one) => one !== scope))
              }
            />
            {text}
          </label>
        ))}
      </fieldset>
      <label class="field">
        <span>Expires</span>
        <select value={days} onChange={(event) => setDays(event.currentTarget.value)}>
          {LIVES.map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
        </select>
      </label>
      <button type="submit" class="main" disabled={!scopes.length || isMaking}>
        Create
      </button>
      {error && <Problem error={error} />}
    </form>
  );
}
