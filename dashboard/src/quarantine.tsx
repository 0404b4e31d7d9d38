// Quarantine: events that were refused, with what is wrong; mended, replayed or dropped.

import { useState } from "preact/hooks";
import { change, getText, type List, verbatim } from "./api";
import { useAnswer, useOnce } from "./hooks";
import { Answered, Problem } from "./parts";
import { moment } from "./time";

const QUARANTINE = "/v1/organization/usage/quarantine";

interface Fault {
  field: string | null;
  message: string;
}

interface Entry {
  id: string;
  created_at: number;
  source: string;
  event: unknown;
  faults: Fault[];
}

interface Receipt {
  accepted: number;
  duplicates: number;
  rejected: number;
  conflicts: number;
  faults: Fault[];
}

function told({ accepted, duplicates, rejected, conflicts, faults }: Receipt): string {
  const counts = `${accepted} accepted, ${duplicates} already there, ${rejected + conflicts} still in quarantine`;
  const [first] = faults;
  return `Replayed: ${counts}${first ? `, the first since: ${first.message}` : ""}.`;
}

async function entries(signal: AbortSignal): Promise<List<Entry>> {
  const text = await getText(
    QUARANTINE,
    [
      ["limit", "50"],
      ["order", "desc"],
    ],
    signal,
  );
  const list: List<Entry> = JSON.parse(text);
  const { data }: List<Entry> = JSON.parse(text, verbatim);
  return { ...list, data: list.data.map((entry, at) => ({ ...entry, event: data[at]?.event })) };
}

export function Quarantine({ mayWrite }: { mayWrite: boolean }) {
  const answer = useAnswer("quarantine", entries);
  const [outcome, setOutcome] = useState("");
  const [error, setError] = useState<Error>();
  const [, once] = useOnce();
  const act = (work: () => Promise<string>) =>
    once(async () => {
      setOutcome("");
      setError(undefined);
      try {
        setOutcome(await work());
      } catch (refused) {
        setError(refused as Error);
      }
      answer.again();
    });
  const replay = (id: string, mended?: string) =>
    act(async () => told(await change<Receipt>("POST", `${QUARANTINE}/${id}/replay`, mended)));
  const drop = (id: string) => {
    if (!confirm("Drop this event? It is gone for good and never counted.")) return;
    act(async () => {
      await change("DELETE", `${QUARANTINE}/${id}`);
      return "Dropped.";
    });
  };
  return (
    <section class="panel" aria-label="Quarantine">
      <div class="summary">
        <h2 id="quarantine">Quarantine</h2>
        <span class="gap" />
        {mayWrite && Boolean(answer.value?.data.length) && (
          <button
            type="button"
            onClick={() => act(async () => told(await change<Receipt>("POST", `${QUARANTINE}/replay`)))}
          >
            Replay all
          </button>
        )}
      </div>
      <p role="status">{outcome}</p>
      {error && <Problem error={error} />}
      <Answered answer={answer} height="4rem">
        {({ data, has_more }) =>
          data.length ? (
            <>
              {data.map((entry) => (
                <Mend key={entry.id} entry={entry} mayWrite={mayWrite} replay={replay} drop={drop} />
              ))}
              {has_more && <p class="quiet">These are the newest 50; there are more.</p>}
            </>
          ) : (
            <p class="nothing">Empty: every event that was sent is counted.</p>
          )
        }
      </Answered>
    </section>
  );
}

function Mend({
  entry,
  mayWrite,
  replay,
  drop,
}: {
  entry: Entry;
  mayWrite: boolean;
  replay: (id: string, mended?: string) => void;
  drop: (id: string) => void;
}) {
  const written = typeof entry.event === "string" ? entry.event : JSON.stringify(entry.event, null, 2);
  const [text, setText] = useState(written);
  const [error, setError] = useState<Error>();
  const send = () => {
    setError(undefined);
    if (text === written) return replay(entry.id);
    try {
      JSON.parse(text);
    } catch {
      return setError(
        new Error("This is not JSON. Mend that first: quotes around names and texts, no comma at the end."),
      );
    }
    replay(entry.id, text); // as it is written: numbers keep all their digits
  };
  return (
    <details class="entry">
      <summary>
        <span>{entry.faults.map(({ field, message }) => (field ? `${field}: ${message}` : message)).join("; ")}</span>
        <span class="quiet"> · {moment(entry.created_at)}</span>
      </summary>
      <label class="field">
        <span>Event as it was sent</span>
        <textarea
          spellcheck={false}
          rows={Math.min(16, text.split("\n").length + 1)}
          readOnly={!mayWrite}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      {error && <Problem error={error} />}
      {mayWrite && (
        <p class="tools">
          <button type="button" class="main" onClick={send}>
            Replay
          </button>
          <button type="button" onClick={() => drop(entry.id)}>
            Drop
          </button>
        </p>
      )}
    </details>
  );
}
