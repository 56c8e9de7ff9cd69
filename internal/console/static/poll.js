// poll runs a round now and every so often while the page is open and can be seen. A
// round that fails shows its error once and is tried again.
import { toast } from "./dom.js";

export async function poll(signal, every, round) {
  await round(); // the first failure is the page's
  let broken = "";
  const again = async () => {
    if (signal.aborted) return;
    if (!document.hidden) {
      try {
        await round();
        broken = "";
      } catch (error) {
        if (signal.aborted) return;
        if (error.message !== broken) toast(error.message, true);
        broken = error.message;
      }
    }
    setTimeout(again, every);
  };
  setTimeout(again, every);
}
