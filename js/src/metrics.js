// Prometheus text exposition format 0.0.4.

/**
 * Rows of `[name, type, help, value, labels?]` as text. Rows of one name stand
 * together and are described once.
 */
export function prometheusText(rows) {
  let text = '';
  let last;
  for (const [name, type, help, value, labels] of rows) {
    if (name !== last) text += `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
    last = name;
    const pairs = Object.entries(labels ?? {}).map(([k, v]) => `${k}="${escape(v)}"`);
    text += `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`;
  }
  return text;
}

const escape = (value) => String(value).replace(/[\\"\n]/g, (c) => (c === '\n' ? '\\n' : `\\${c}`));

/** `0.5` as `"50.00%"`: the form that users of older versions parse. */
export const percent = (ratio) => `${(ratio * 100).toFixed(2)}%`;
