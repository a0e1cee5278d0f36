"The console commands; each is an ordinary function, too"
