// A program that sends with @segment/analytics-node, as its users write it: URL, write key and a name as arguments.
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, name] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host, maxEventsInBatch: 100 });
analytics.on("error", (error) => {
  console.error(error);
  process.exitCode = 1;
});
for (let number = 0; number < 1000; number++) {
  const userId = `${name}-${number % 20}`;
  const properties = { client: name, number };
  if (number < 20) {
    analytics.identify({ userId, traits: { name: "Jo Doe", email: `${userId}@clients.test`, number } });
  } else if (number % 2) {
    analytics.track({ userId, event: "Email Opened", properties });
  } else {
    analytics.page({ userId, name: "Pricing", properties: { path: "/pricing", ...properties } });
  }
}
await analytics.closeAndFlush({ timeout: 60_000 });
