// The way in which a test talks to a server: a line of JSON on the standard input for each command, and a line of JSON on the standard output
// for each answer. The first line tells the port. The server ends when there are no more commands, however the test ends.

import { createInterface } from 'node:readline';

// The standard output is for answers only.
console.log = console.info = console.error;

/** The settings of the server: the first argument. */
export const settings = JSON.parse(process.argv[2] ?? '{}');

/** Obeys the commands of a test. Each is a function of the members of its line. */
export async function obey(port, commands) {
  say({ port });
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...members } = JSON.parse(line);
    say({ answer: (await commands[command](members)) ?? null });
  }
  process.exit(0);
}

function say(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}
