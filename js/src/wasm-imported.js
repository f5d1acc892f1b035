// Where code may not be compiled at run time (Workers), the platform compiles the
// module at deployment and gives it by a static import.
import module from '../edgeweir.wasm';

export const compile = () => module;
