// Sources: who sent what lately, and what of it needs a look, such as a call that two of them report.

import { get } from "./api";
import { useAnswer } from "./hooks";
import { subject } from "./kinds";
import { Answered, Scroll } from "./parts";
import { bucket, moment } from "./time";

interface Source {
  source: string;
  kind: string;
  events: number;
  first_event_at: number;
  last_event_at: number;
}

interface Notice {
  subject: string;
  source: string;
  /** A field; the other source; that and a count, with a space between; or the scopes of two senders. */
  name: string;
  count: number;
  last_at: number;
  example: string | null;
}

interface Sources {
  start_time: number;
  end_time: number;
  sources: Source[];
  /** Absent from servers of versions before. */
  notices?: Notice[];
}

const COUNT = new Intl.NumberFormat();
const NAMES: Readonly<Record<string, string>> = {
  events: "Tallybook's own events",
  openai: "OpenAI answers",
  anthropic: "Anthropic answers",
  gemini: "Gemini answers",
  bedrock: "Bedrock answers",
  ollama: "Ollama answers",
  cohere: "Cohere answers",
  response: "Answers of any provider",
  litellm: "LiteLLM",
  otlp: "OpenTelemetry",
  "otlp-metrics": "OpenTelemetry metrics",
  cloudevents: "CloudEvents",
  sync: "tallybook sync",
};

function called(source: string): string {
  return NAMES[source] ?? source;
}

/** What each subject means, and what to do about it. */
const MEANINGS: Readonly<Record<string, { text: (notice: Notice) => string; remedy: string }>> = {
  unread: {
    text: ({ source, name }) => `${called(source)}: the field ${name} is not read; what it counts is in no usage.`,
    remedy: "If your provider charges for it, look for a newer version of Tallybook, or report the field as missing.",
  },
  repeated: {
    text: ({ source, name }) => `${called(source)} and ${called(name)}: both report the same calls. Each counts once.`,
    remedy: "The numbers are right. To send less, switch one of the two off.",
  },
  differing: {
    text: ({ source, name }) => {
      const [other = "", count = ""] = name.split(" ");
      const before = other === source ? "before" : `${called(other)} had reported`;
      return `${called(source)}: calls were reported with another ${count} than ${before}. The first report stands.`;
    },
    remedy: "Compare both, and switch off the sender that is wrong.",
  },
  alike: {
    text: ({ source, name }) =>
      `${called(source)}: reports without a response id look like one call each (${name}). Each of them counts.`,
    remedy: "If they are one call, switch one of the senders off, or have them send the provider's response id.",
  },
};

/** What a later version may say. */
const OTHER = { text: ({ source, name }: Notice) => `${called(source)}: ${name}`, remedy: "" };

function Notices({ notices }: { notices: Notice[] }) {
  return (
    <ul class="notices" aria-label="Notices about sources">
      {notices.map((notice) => {
        const { text, remedy } = MEANINGS[notice.subject] ?? OTHER;
        return (
          <li key={JSON.stringify(notice)}>
            <p>
              <bdi>{text(notice)}</bdi> {remedy}
            </p>
            <p class="quiet">
              {notice.count === 1 ? "Once" : `${COUNT.format(notice.count)} times`}, last {moment(notice.last_at)}
              {notice.example && (
                <>
                  , such as <code>{notice.example}</code>
                </>
              )}
            </p>
          </li>
        );
      })}
    </ul>
  );
}

export function Sources() {
  const answer = useAnswer("sources", (signal) => get<Sources>("/v1/organization/usage/sources", [], signal));
  return (
    <section class="panel" aria-label="Sources">
      <div class="summary">
        <h2 id="sources">Sources</h2>
        {answer.value && <p class="quiet">since {bucket(answer.value.start_time, "1d")}</p>}
      </div>
      <Answered answer={answer} height="8rem">
        {({ sources, notices = [] }) => (
          <>
            {notices.length > 0 && <Notices notices={notices} />}
            {sources.length ? (
              <Scroll label="All sources">
                <table>
                  <thead>
                    <tr>
                      <th scope="col">Source</th>
                      <th scope="col">Kind</th>
                      <th scope="col" class="number">
                        Events
                      </th>
                      <th scope="col">First</th>
                      <th scope="col">Last</th>
                    </tr>
                  </thead>
                  <tbody>
                    {sources.map(({ source, kind, events, first_event_at, last_event_at }) => (
                      <tr key={`${source} ${kind}`}>
                        <th scope="row">
                          <bdi>{called(source)}</bdi>
                        </th>
                        <td>{subject(kind).label}</td>
                        <td class="number">{COUNT.format(events)}</td>
                        <td>{moment(first_event_at)}</td>
                        <td>{moment(last_event_at)}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Scroll>
            ) : (
              <p class="nothing">Nothing was sent in this time.</p>
            )}
          </>
        )}
      </Answered>
    </section>
  );
}
