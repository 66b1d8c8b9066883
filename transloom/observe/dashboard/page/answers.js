// The source of responses: the server, or the map that is frozen into a report. No other module
// sends requests.
//
//   ask("/api/runs/ID")            a response, as JSON
//   startLook(ID, A, B)            starts an inspection of steps
//   follow({message, standing})    receives events until the page is left

const RETRY_MS = 3000;

export class NoAnswer extends Error {}

// The responses that are frozen into this document, or the server's.
export function answersOf(document) {
  const frozen = document.getElementById("frozen");
  return frozen ? new FrozenAnswers(JSON.parse(frozen.textContent)) : new ServedAnswers();
}

export class FrozenAnswers {
  constructor(answers) {
    this.answers = answers;
    this.frozen = answers["/frozen"] ?? {};
    this.canLook = false;
  }

  // A request for a part of a curve gets the whole curve, since the report has no finer one.
  async ask(path) {
    const answer = this.answers[path] ?? this.answers[path.split("?")[0]];
    if (answer === undefined) throw new NoAnswer("The report does not include this.");
    return answer;
  }

  follow() {}
}

export class ServedAnswers {
  constructor() {
    this.frozen = null;
    this.canLook = true;
  }

  async ask(path) {
    return this.#answer(path, {});
  }

  async startLook(id, first, last) {
    const body = JSON.stringify({ from: first, to: last });
    const headers = { "Content-Type": "application/json" };
    return this.#answer(`/api/runs/${id}/looks`, { method: "POST", body, headers });
  }

  // Calls `message(kind, data)` for each event, and `standing("following" | "lost")`. A browser
  // reconnects automatically, except after a refusal, such as by a restarted server.
  follow({ message, standing }) {
    const source = new EventSource("api/follow");
    source.addEventListener("open", () => standing("following"));
    source.addEventListener("error", () => {
      standing("lost");
      if (source.readyState === EventSource.CLOSED) {
        setTimeout(() => this.follow({ message, standing }), RETRY_MS);
      }
    });
    for (const kind of ["runs", "steps", "curves", "looks"]) {
      source.addEventListener(kind, (event) => message(kind, JSON.parse(event.data)));
    }
    window.addEventListener("pagehide", () => source.close());
  }

  async #answer(path, options) {
    let response;
    try {
      response = await fetch(path.slice(1), options); // relative to the page
    } catch {
      throw new NoAnswer("The dashboard does not respond: is `transloom dashboard` still running?");
    }
    const text = await response.text();
    let answer = null;
    try {
      answer = JSON.parse(text);
    } catch {
      if (response.ok) throw new NoAnswer(`The response to ${path} is not JSON.`);
    }
    if (response.ok) return answer;
    throw new NoAnswer(answer?.problem ?? `${response.status}: ${text}`);
  }
}
