public class Main {
    record Greeting(String who) {}

    public static void main(String[] args) {
        var greeting = new Greeting(args.length > 0 ? args[0] : "nobody");
        System.out.printf("Hello from %s, class file %.0f, %d module%n", greeting.who(),
            Double.parseDouble(System.getProperty("java.class.version")), ModuleLayer.boot().modules().size());
    }
}
