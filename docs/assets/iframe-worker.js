/* Search in pages that are opened from a folder.
 *
 * Browsers refuse web workers from file: addresses. There, this class runs a worker's script in a
 * hidden frame instead, and passes messages in both directions. Material for MkDocs loads a file
 * of this name before its own scripts, and its worker looks for the name IFrameWorker.
 */
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const url = new URL(address, location.href);
      this.onmessage = null;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.append(frame);
      const scope = frame.contentWindow;
      scope.document.open();
      scope.document.write("<!doctype html><title>search</title>");
      scope.document.close();
      scope.postMessage = (data) => this.#deliver(data);
      scope.importScripts = (...urls) =>
        urls.reduce((done, each) => done.then(() => load(each)), Promise.resolve());
      const load = (source) =>
        new Promise((resolve, reject) => {
          const script = scope.document.createElement("script");
          script.src = new URL(source, url);
          script.onload = resolve;
          script.onerror = reject;
          scope.document.body.append(script);
        });
      this.scope = scope;
      this.ready = load(url);
    }
    postMessage(data) {
      this.ready.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.scope.frameElement.remove();
    }
    #deliver(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }
  };
}
