// Asks a server through the official npm client, unmodified. Standard input: {"url", "key", "calls": [[path, ...arguments]]},
// a path being below client.admin.organization. Standard output: for each call {"answer"} or {"error"}.
import OpenAI from "openai";
import { text } from "node:stream/consumers";

const PAGES_MAX = 1000;
const { url, key, calls } = JSON.parse(await text(process.stdin));
const { organization } = new OpenAI({ baseURL: `${url}/v1`, adminAPIKey: key, maxRetries: 0 }).admin;

async function call([path, ...args]) {
  const names = path.split(".");
  const method = names.pop();
  const resource = names.reduce((at, name) => at[name], organization);
  if (!path.startsWith("usage.")) {
    const answer = await resource[method](...args);
    return answer.iterPages ? Array.fromAsync(answer) : answer; // a list: every item of every page
  }
  const [query] = args;
  const pages = [];
  for (let page; pages.length < PAGES_MAX; page = pages.at(-1).next_page) {
    if (pages.length && page == null) break;
    pages.push(await resource[method](page ? { ...query, page } : query));
  }
  return pages;
}

const answers = [];
for (const each of calls) {
  try {
    answers.push({ answer: await call(each) });
  } catch (error) {
    const { name, status, type, param, code, requestID, message } = error;
    answers.push({ error: { class: error.constructor.name, name, status, type, param, code, requestID, message } });
  }
}
process.stdout.write(JSON.stringify(answers));
