import js from '@eslint/js';

const platform = ['performance', 'setTimeout', 'clearTimeout', 'setImmediate', 'queueMicrotask', 'crypto', 'WebAssembly', 'AbortController', 'AbortSignal',
  'TextEncoder', 'TextDecoder', 'URL', 'Headers', 'Request', 'Response', 'fetch', 'structuredClone', 'console', 'Buffer', 'process', 'atob', 'btoa',
  'CompressionStream', 'DecompressionStream', 'Blob', 'ReadableStream', 'BroadcastChannel', 'MessageChannel'];

export default [
  { ignores: ['dist/', 'wasm/', '**/node_modules/'] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2023, sourceType: 'module', globals: Object.fromEntries(platform.map((name) => [name, 'readonly'])) },
    rules: {
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'no-unused-vars': ['error', { argsIgnorePattern: '^_', caughtErrors: 'none' }],
      'no-control-regex': 'off',
      'no-extend-native': 'error',
      'no-promise-executor-return': 'off',
      'require-atomic-updates': 'off',
    },
  },
  // What a user may run in a browser touches nothing of Node outside its platform file.
  { files: ['src/**'], ignores: ['src/platform-node.js', 'src/files.js'], rules: { 'no-restricted-imports': ['error', { patterns: ['node:*'] }], 'no-restricted-globals': ['error', 'process', 'Buffer', 'console'] } },
];
