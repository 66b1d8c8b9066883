// Draws the elements on the screen in slices, between which the page answers keys, clicks and the scroll
// bar. Other elements are drawn when they come near the screen.

export const SLICE_MS = 20; // well below the 50 ms after which a browser counts a task as long
const NEAR = "200px"; // so that elements are drawn before a reader scrolls to them

const waiting = new WeakMap(); // what draws each element
const queue = [];
let observer = null;
let running = null;

// Call `draw` once an element comes into view; a later call for the same element replaces an earlier one.
export function whenInView(node, draw) {
  observer ??= new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      queue.push(target);
      observer.unobserve(target);
    }
    running ??= run().finally(() => { running = null; });
  }, { rootMargin: NEAR });
  observer.unobserve(node); // the observer reports where an element is when it begins to observe it
  waiting.set(node, draw);
  observer.observe(node);
}

async function run() {
  for (let until = performance.now() + SLICE_MS; queue.length;) {
    const node = queue.shift();
    if (node.isConnected) waiting.get(node)(); // it may have been replaced since it came into view
    if (performance.now() < until) continue;
    await nextTask();
    until = performance.now() + SLICE_MS;
  }
}

// Resolves when all elements on the screen have been drawn.
export async function whenStill() {
  do {
    await nextFrame(); // the observer reports changed elements after the next frame
    await nextFrame();
    await running;
  } while (queue.length);
}

const nextFrame = () => new Promise(requestAnimationFrame);

// A message, unlike a timer, is not delayed in a tab that is in the background.
export function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
